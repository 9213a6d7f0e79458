"""What an engine is: a loaded model, and the execution contexts that run batches through it.

The words are TensorRT's. An `Engine` holds the weights and is shared; an `ExecutionContext` holds
what one run at a time needs (input buffers, a stream, an inference request) and belongs to one
thread. A provider subclasses both and writes three short hooks: `Engine._load`,
`Engine.create_context` and `ExecutionContext._execute`; the base classes own every check, so that
all providers refuse the same mistakes with the same words (an idea of Polygraphy's runners).
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import torch

if TYPE_CHECKING:
    from engine.normalization import Normalization
    from engine.onnx_model import OnnxModel


class EngineError(Exception):
    """A model, engine or setting that cannot work; the message says what would."""


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a model.

    Attributes:
        name: the tensor's name in the ONNX graph.
        dtype: the element type.
        shape: logical shape with the batch dimension first and None for it: (None, 3, 224, 224).
        channels_last: True where the graph wants the memory order N, H, W, C. The logical shape
            stays (N, C, H, W), as with `torch.channels_last`.
    """

    name: str
    dtype: torch.dtype
    shape: tuple[int | None, ...]
    channels_last: bool = False

    @property
    def item_shape(self) -> tuple[int | None, ...]:
        """The shape of one row, without the batch dimension."""
        return self.shape[1:]

    def allocate(
        self, rows: int, device: torch.device | str = "cpu", *, pinned: bool = False
    ) -> torch.Tensor:
        """An uninitialised buffer of `rows` rows in the memory order that the graph wants.

        Args:
            rows: how many.
            device: where.
            pinned: in page-locked host memory, from which a GPU copies by itself.
        """
        order = torch.channels_last if self.channels_last else torch.contiguous_format
        shape = [rows, *(size or 1 for size in self.item_shape)]
        return torch.empty(
            shape, dtype=self.dtype, device=device, memory_format=order, pin_memory=pinned
        )


@dataclass(frozen=True)
class BatchProfile:
    """Sizes of batches that a context is made for; it is fastest at the largest.

    Attributes:
        min_rows: rows of the smallest batch.
        max_rows: rows of the largest batch.
    """

    min_rows: int
    max_rows: int

    def __post_init__(self) -> None:
        if not 1 <= self.min_rows <= self.max_rows:
            raise EngineError(
                f"a profile's min must be from 1 to its max, got min {self.min_rows} and "
                f"max {self.max_rows}"
            )


@dataclass(frozen=True)
class EngineOptions:
    """How an engine is to run.

    Attributes:
        precision: "fp32", "bf16", ... one of the provider's `precisions`.
        max_batch_size: rows of the largest batch.
        num_contexts: how many contexts will run at the same time.
        threads_per_context: CPU threads that one run may use. `num_contexts` times this should be
            the cores of the host: `engine.cpu.threads_per_context` computes it.
        device_id: which GPU, where the engine runs on one.
        cache_path: file in which to keep what was prepared from the model, or None. It is used
            again only if it was made from the same model and settings by the same version. A name
            that ends in ".encrypted" makes it unreadable without its key.
        cache_key_file: file with that key, or None for the environment: see
            `engine.encrypted_file.read_key`.
        profiles: for the n-th context that is made the n-th of these, and the last one for all
            after it; where there are none, any batch up to `max_batch_size` suits all. Only
            TensorRT prepares itself for them.
        fp32_layers: parts of names of layers that run in fp32, whatever the precision is.
        fp16_layers: parts of names of layers that run in fp16, where the engine has it.
        calibration_dir: folder of images like those that will come, for precision "int8".
        calibration_normalization: mean and std of a model that takes floats, for "int8"; a model
            with them in its graph needs none.
        timing_cache_path: file in which TensorRT keeps what it has measured, so that it builds
            similar engines faster, or None.
        max_workspace_bytes: scratch memory that TensorRT may plan with.
    """

    precision: str = "fp32"
    max_batch_size: int = 1
    num_contexts: int = 1
    threads_per_context: int = 1
    device_id: int = 0
    cache_path: Path | None = None
    cache_key_file: Path | None = None
    profiles: tuple[BatchProfile, ...] = ()
    fp32_layers: tuple[str, ...] = ()
    fp16_layers: tuple[str, ...] = ()
    calibration_dir: Path | None = None
    calibration_normalization: Normalization | None = None
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


class ExecutionContext(ABC):
    """Runs batches, one at a time.

    Create it in the thread that will run it: a GPU provider binds its stream to that thread, and
    a CPU provider its thread count.

    Attributes:
        profile: whether to keep the times of a run, for which copying and computing take turns.
        times_ms: milliseconds of the last profiled run: "copy" into the input buffers, and "infer"
            with the copy of the outputs.
    """

    profile = False

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._max_batch_size = engine.options.max_batch_size
        self._inputs = [self._allocate_input(spec) for spec in engine.inputs]
        self.times_ms: dict[str, float] = {}

    def run(self, items: Sequence[Sequence[torch.Tensor]]) -> list[torch.Tensor]:
        """Run one batch.

        Args:
            items: one entry per request, each with one tensor per model input. A tensor has a
                leading dimension of one or more rows, the input's item shape behind it, and any
                dtype that converts to the input's without loss of meaning (uint8 to float32).

        Returns:
            One tensor per model output in host memory, with the rows of all items in order. They
            may be views of buffers that the next run overwrites.

        Raises:
            EngineError: no rows, more rows than `max_batch_size`, or a tensor of another shape.
        """
        rows = sum(self._checked_rows(item) for item in items)
        if rows == 0:
            raise EngineError("a batch needs at least one row, got none")
        if rows > self._max_batch_size:
            raise EngineError(f"a batch holds at most {self._max_batch_size} rows, got {rows}")
        if not self.profile:
            self._place(items, rows)
            return self._execute(rows)
        started_s = time.monotonic()
        self._place(items, rows)
        self._wait()
        placed_s = time.monotonic()
        outputs = self._execute(rows)
        self.times_ms = {
            "copy": (placed_s - started_s) * 1000,
            "infer": (time.monotonic() - placed_s) * 1000,
        }
        return outputs

    def _checked_rows(self, item: Sequence[torch.Tensor]) -> int:
        """How many rows one item has; EngineError if it does not fit the model."""
        if len(item) != len(self._inputs):
            raise EngineError(
                f"the model has {len(self._inputs)} inputs, got {len(item)} tensors for one item"
            )
        for tensor, spec in zip(item, self.engine.inputs, strict=True):
            check_item(tensor, spec)
        if len(row_counts := {tensor.shape[0] for tensor in item}) != 1:
            raise EngineError(f"the tensors of one item have {sorted(row_counts)} rows")
        return item[0].shape[0]

    def _place(
        self,
        items: Sequence[Sequence[torch.Tensor]],
        rows: int,  # noqa: ARG002 (for contexts that copy the whole batch at once)
    ) -> None:
        """Copy the items into the input buffers, one behind the other."""
        copy_rows(items, self._inputs)

    def _wait(self) -> None:  # noqa: B027 (on a CPU nothing is outstanding)
        """Wait until what was enqueued is done."""

    def _allocate_input(self, spec: TensorSpec) -> torch.Tensor:
        return spec.allocate(self._max_batch_size)

    @abstractmethod
    def _execute(self, rows: int) -> list[torch.Tensor]:
        """Run the first `rows` rows of the input buffers; return one tensor per output."""

    def close(self) -> None:  # noqa: B027 (most contexts hold nothing that must be freed by hand)
        """Free what the context holds outside of Python. The context is unusable afterwards."""


def copy_rows(items: Sequence[Sequence[torch.Tensor]], buffers: Sequence[torch.Tensor]) -> None:
    """Copy the rows of items, each with one tensor a buffer, one behind the other."""
    start = 0
    for item in items:
        stop = start + item[0].shape[0]
        for tensor, buffer in zip(item, buffers, strict=True):
            buffer[start:stop].copy_(tensor, non_blocking=True)
        start = stop


def check_item(tensor: torch.Tensor, spec: TensorSpec) -> None:
    """Raise EngineError unless `tensor` is one or more rows of `spec`."""
    if tensor.shape[1:] == spec.item_shape:
        return
    given, wanted = tuple(tensor.shape), (None, *spec.item_shape)
    fits = len(given) == len(wanted) and all(
        w is None or g == w for g, w in zip(given, wanted, strict=True)
    )
    if not fits:
        text = "x".join("N" if size is None else str(size) for size in wanted)
        got = "x".join(map(str, given)) or "a scalar"
        raise EngineError(f"input {spec.name!r} takes {text}, got {got}")


class Engine(ABC):
    """A model loaded by one provider.

    Attributes:
        name: the provider's name, as `--engine` spells it.
        precisions: what `EngineOptions.precision` may be here.
        device: "cpu" or "cuda".
        thread_safe: True where any thread may create contexts at will and cheaply, so that a
            server may run the engine without a lock and without planning for instances.
        inputs: the model's inputs, as `ExecutionContext.run` takes them.
        outputs: the model's outputs.
        versions: package name to version of what runs the model.
    """

    name: ClassVar[str]
    precisions: ClassVar[tuple[str, ...]]
    device: ClassVar[str]
    thread_safe: ClassVar[bool]

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def __init__(self, model: OnnxModel, options: EngineOptions) -> None:
        if options.precision not in self.precisions:
            raise EngineError(
                f"engine {self.name!r} runs {' or '.join(self.precisions)}, "
                f"got precision {options.precision!r}"
            )
        self.model = model
        self.options = options
        self.inputs = model.inputs
        self.outputs = model.outputs
        self._load()

    @property
    @abstractmethod
    def versions(self) -> dict[str, str]:
        """Package name to version of what runs the model."""

    @abstractmethod
    def _load(self) -> None:
        """Load `self.model` as `self.options` say."""

    @abstractmethod
    def create_context(self) -> ExecutionContext:
        """A context for the calling thread."""

    def close(self) -> None:  # noqa: B027 (most providers free everything with the object)
        """Free the model. Contexts must be closed before."""
