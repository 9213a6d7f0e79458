"""Building TensorRT engines, for TensorRT 10.3 to 11.

Nothing here imports TensorRT: the package to work with is an argument. On a machine with a GPU that
is `tensorrt`. The tests build with TensorRT for RTX, which has the same interface, and whose
builder needs no GPU.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

from engine.cache.checksummed_file import UnusableFileError, read_kept, why_not_kept, write_kept
from engine.cache.engine_cache import check_folder
from engine.errors import EngineError
from engine.options import BatchProfile

# The package has no types that mypy could read.
TensorRt: TypeAlias = Any

_MAX_REASON_CHARACTERS = 500
# Real ones have some megabytes.
_MAX_TIMING_CACHE_BYTES = 1024 * 1024 * 1024

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BuildSettings:
    """What shapes an engine besides its graph.

    Attributes:
        profiles: the batches that it is made for.
        max_workspace_bytes: scratch memory that it may plan with.
        timing_cache_path: file that keeps what was measured, for similar engines; or None.
        limits: by the name of an input whose rows may have several shapes the smallest and the
            largest, with their dimensions as the graph has them.
    """

    profiles: tuple[BatchProfile, ...]
    max_workspace_bytes: int
    timing_cache_path: Path | None = None
    limits: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)

    def facts(self) -> dict[str, str]:
        """What an engine depends on, for the key of its cache file."""
        profiles = "; ".join(map(str, self.profiles))
        facts = {"profiles": profiles, "max_workspace_bytes": str(self.max_workspace_bytes)}
        return {**facts, "limits": str(self.limits)} if self.limits else facts


@cache
def logger_of(trt: TensorRt) -> Any:
    """The `trt.ILogger` of this process, which passes messages on to this module's logger.

    TensorRT keeps the first logger that it gets for as long as anything of it lives, and ignores
    all others: so there is one, and it is never freed. Its `last_error` is the error that
    TensorRT reported last, in one line, or "".
    """

    class Forwarding(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.last_error = ""

        def log(self, severity: Any, message: str) -> None:
            # Errors become the reason of an EngineError; TensorRT's remarks are many.
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.last_error = _one_line(message)
            is_warning = severity == trt.ILogger.Severity.WARNING
            _logger.log(logging.WARNING if is_warning else logging.DEBUG, "TensorRT: %s", message)

    return Forwarding()


def build_plan(
    trt: TensorRt,
    graph: bytes,
    settings: BuildSettings,
    configure: Callable[[Any], None] | None = None,
) -> bytes:
    """Build an engine.

    Args:
        trt: the package `tensorrt`, or one with its interface.
        graph: an ONNX model whose types are those that the layers are to run in. The first
            dimension of its inputs is the batch; the others are fixed, or within the limits.
        settings: what else shapes it.
        configure: has the last word on TensorRT's own builder configuration.

    Returns:
        The serialized engine, which fits this TensorRT version and GPU only.

    Raises:
        EngineError: TensorRT cannot read or build the graph, with its reason in one line; or the
            timing cache's folder does not exist.
    """
    if settings.timing_cache_path is not None:
        check_folder(settings.timing_cache_path, "timing cache")
    log = logger_of(trt)
    builder = trt.Builder(log)
    # Version 11 knows no other networks, and ignores the flag.
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    _parse(trt, graph, network, log)
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, settings.max_workspace_bytes)
    # fp32 means fp32: the tensor cores' TF32 has the 10 bits of fp16.
    config.clear_flag(trt.BuilderFlag.TF32)
    for profile in settings.profiles:
        _add_profile(builder, config, network, profile, settings)
    if settings.timing_cache_path is not None:
        _read_timing_cache(config, settings.timing_cache_path)
    if configure is not None:
        configure(config)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise EngineError(f"TensorRT cannot build the engine: {log.last_error}")
    if settings.timing_cache_path is not None:
        _write_timing_cache(config, settings.timing_cache_path)
    return bytes(plan)


def _parse(trt: TensorRt, graph: bytes, network: Any, log: Any) -> None:
    parser = trt.OnnxParser(network, log)
    if parser.parse(graph):
        return
    if parser.num_errors == 0:
        raise EngineError(f"TensorRT cannot read the graph: {log.last_error}")
    error = parser.get_error(0)
    raise EngineError(
        f"TensorRT cannot read the graph: layer {error.node_name()!r} ({error.node_operator()}): "
        f"{_one_line(error.desc())}"
    )


def _add_profile(
    builder: Any, config: Any, network: Any, profile: BatchProfile, settings: BuildSettings
) -> None:
    """A profile with kernels chosen for its usual batch, of the largest rows.

    That is the largest where nothing else is said: under load most batches are full.
    """
    usual_rows = profile.usual_rows or profile.max_rows
    shapes = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        fixed = tuple(tensor.shape)[1:]
        low, high = settings.limits.get(tensor.name, (fixed, fixed))
        shapes.set_shape(
            tensor.name,
            (profile.min_rows, *low),
            (usual_rows, *high),
            (profile.max_rows, *high),
        )
    if config.add_optimization_profile(shapes) < 0:
        raise EngineError(
            f"TensorRT refuses batches of {profile.min_rows} to {profile.max_rows} rows"
        )


def _read_timing_cache(config: Any, path: Path) -> None:
    try:
        # One that another program has written is as good.
        content = read_kept(path, _MAX_TIMING_CACHE_BYTES, foreign=True)
    except FileNotFoundError:
        content = b""
    except UnusableFileError as reason:
        _logger.warning("building timing cache %s again: %s", path, reason)
        content = b""
    # TensorRT itself refuses what another GPU or version has measured.
    if not config.set_timing_cache(config.create_timing_cache(content), False):
        _logger.info("building timing cache %s again: it does not fit this GPU and version", path)
        config.set_timing_cache(config.create_timing_cache(b""), False)


def _write_timing_cache(config: Any, path: Path) -> None:
    try:
        write_kept(path, bytes(config.get_timing_cache().serialize()))
    except OSError as error:
        if (reason := why_not_kept(path, error)) is None:
            raise EngineError(f"cannot write the timing cache {path}: {error.strerror}") from error
        _logger.warning(reason)


def _one_line(message: str) -> str:
    return " ".join(message.split())[:_MAX_REASON_CHARACTERS]
