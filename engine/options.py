"""How an engine is to run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from engine.errors import EngineError
from engine.normalization import Normalization


@dataclass(frozen=True)
class BatchProfile:
    """Sizes of batches that a context is made for.

    Attributes:
        min_rows: rows of the smallest batch.
        max_rows: rows of the largest batch.
        usual_rows: rows of the batch at which it is to be fastest; 0 for the largest.
    """

    min_rows: int
    max_rows: int
    usual_rows: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.min_rows <= self.max_rows:
            raise EngineError(
                f"a profile's min must be from 1 to its max, got min {self.min_rows} and "
                f"max {self.max_rows}"
            )
        if self.usual_rows and not self.min_rows <= self.usual_rows <= self.max_rows:
            raise EngineError(
                f"a profile's usual batch must be from its min to its max, got {self.usual_rows}"
            )

    def __str__(self) -> str:
        usual = f", usually {self.usual_rows}" if self.usual_rows else ""
        return f"{self.min_rows} to {self.max_rows}{usual}"


@dataclass(frozen=True)
class EngineOptions:
    """How an engine is to run.

    Attributes:
        precision: "fp32", "bf16", ... one of the provider's `precisions`.
        max_batch_size: rows of the largest batch.
        num_contexts: how many contexts will run at the same time.
        threads_per_context: CPU threads that one run may use. `num_contexts` times this should be
            the cores of the machine: `engine.cpu.cores.threads_per_context` computes it.
        unbounded: whether any thread makes a context for itself, so that more run at the same time.
        device_id: which GPU, where the engine runs on one.
        cache_path: file in which to keep what was prepared from the model, or None. It is used
            again only if it was made from the same model and settings by the same version. A name
            that ends in ".encrypted" makes it unreadable without its key.
        cache_key_file: file with that key, or None for the environment: see
            `engine.cache.encrypted_file.read_key`.
        profiles: for the n-th context that is made the n-th of these, and the last one for all
            after it; where there are none, any batch up to `max_batch_size` suits all. Only
            TensorRT prepares itself for them.
        fp32_layers: parts of names of layers that run in fp32, whatever the precision is.
        fp16_layers: parts of names of layers that run in fp16, where the engine has it.
        calibration_dir: folder of images like those that will come, for precision "int8".
        calibration_normalization: mean and std of a model that takes floats, for "int8"; a model
            with them in its graph needs none.
        calibration_skips_bad: whether files of that folder that cannot be used are left out, and
            not a mistake.
        calibration_shorter_side: of the images that will come, before their middle is cut out; None
            where they are resized whole: see `engine.resizing.Resizing`.
        timing_cache_path: file in which TensorRT keeps its measurements, to build similar engines
            faster; or None.
        max_workspace_bytes: scratch memory that TensorRT may plan with.
    """

    precision: str = "fp32"
    max_batch_size: int = 1
    num_contexts: int = 1
    threads_per_context: int = 1
    unbounded: bool = False
    device_id: int = 0
    cache_path: Path | None = None
    cache_key_file: Path | None = None
    profiles: tuple[BatchProfile, ...] = ()
    fp32_layers: tuple[str, ...] = ()
    fp16_layers: tuple[str, ...] = ()
    calibration_dir: Path | None = None
    calibration_normalization: Normalization | None = None
    calibration_skips_bad: bool = False
    calibration_shorter_side: int | None = None
    timing_cache_path: Path | None = None
    max_workspace_bytes: int = 2048 * 2**20

    def __post_init__(self) -> None:
        counts = ("max_batch_size", "num_contexts", "threads_per_context", "max_workspace_bytes")
        for field in counts:
            if (value := getattr(self, field)) < 1:
                raise EngineError(f"{field} must be at least 1, got {value}")
        largest = max((profile.max_rows for profile in self.profiles), default=1)
        if largest > self.max_batch_size:
            raise EngineError(
                f"a profile has up to {largest} rows, more than max_batch_size = "
                f"{self.max_batch_size}"
            )
