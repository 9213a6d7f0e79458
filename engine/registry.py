"""Which engines there are, which one runs, and why."""

from __future__ import annotations

import importlib
import logging
from dataclasses import dataclass, replace
from importlib.util import find_spec

from engine.cpu import fitting_contexts
from engine.cuda_device import cuda_available
from engine.interface import Engine, EngineError, EngineOptions
from engine.names import unknown_name
from engine.onnx_model import OnnxModel

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Provider:
    """Where a provider's class is; it is imported only when it is chosen."""

    target: str
    package: str
    install: str
    precisions: tuple[str, ...]
    device: str = "cpu"
    # OpenVINO computes in threads of its own. With one request a core they would idle while the
    # instance fetches a result and the next batch: with 1.5, 6 % more images a second in bf16.
    contexts_per_core: float = 1.0


_CPU_PROVIDERS = {
    "onnxruntime": _Provider(
        "engine.providers.onnxruntime:OnnxRuntimeEngine",
        "onnxruntime",
        "thriftpipe",
        ("fp32", "int8"),
    ),
    "openvino": _Provider(
        "engine.providers.openvino:OpenVinoEngine",
        "openvino",
        "thriftpipe[openvino]",
        ("fp32", "bf16", "int8"),
        contexts_per_core=1.5,
    ),
    "torch": _Provider(
        "engine.providers.torch:TorchEngine", "torch", "thriftpipe", ("fp32", "bf16")
    ),
}
# On a host with an NVIDIA GPU these stand beside the others, or in their place.
_CUDA_PROVIDERS = {
    "tensorrt": _Provider(
        "engine.providers.tensorrt:TensorRtEngine",
        "tensorrt",
        "thriftpipe[tensorrt]",
        ("fp32", "fp16", "int8"),
        device="cuda",
    ),
    "torch": _Provider(
        "engine.providers.torch_cuda:TorchCudaEngine",
        "torch",
        "thriftpipe",
        ("fp32", "fp16", "bf16"),
        device="cuda",
    ),
}
ENGINE_NAMES = tuple(dict.fromkeys([*_CPU_PROVIDERS, *_CUDA_PROVIDERS]))
AUTO = "auto"
PRECISIONS = ("fp32", "bf16", "fp16", "int8")


@dataclass(frozen=True)
class EngineChoice:
    """The engine that runs.

    Attributes:
        name: one of ENGINE_NAMES.
        precision: one that it runs.
        reason: why it was chosen, as a short phrase.
        device: "cpu" or "cuda".
    """

    name: str
    precision: str
    reason: str
    device: str = "cpu"


def _providers() -> dict[str, _Provider]:
    """What this host can run, by name."""
    return {**_CPU_PROVIDERS, **(_CUDA_PROVIDERS if cuda_available() else {})}


def _provider(name: str) -> _Provider:
    """The provider of that name on this host; EngineError if there is none."""
    if name not in ENGINE_NAMES:
        raise EngineError(unknown_name("engine", name, [AUTO, *ENGINE_NAMES]))
    providers = _providers()
    if name not in providers:
        raise EngineError(
            f"engine {name!r} needs an NVIDIA GPU and a CUDA build of torch, and this host lacks "
            f"them; it has {', '.join(providers)}"
        )
    return providers[name]


def choose_engine(requested: str, precision: str | None = None) -> EngineChoice:
    """Decide which engine runs.

    Args:
        requested: one of ENGINE_NAMES, or "auto" for the fastest that this host has.
        precision: the precision to run, or None for fp16 on a GPU and fp32 on a CPU.

    Raises:
        EngineError: there is no such engine or precision, the engine does not run that precision,
            or its package or its device is missing.
    """
    if precision is not None and precision not in PRECISIONS:
        raise EngineError(unknown_name("precision", precision, PRECISIONS))
    name, reason = requested, "asked for by name"
    if requested == AUTO:
        name, reason = _best(precision)
    provider = _provider(name)
    precision = precision or _default_precision(provider)
    if precision not in provider.precisions:
        able = [other for other, it in _providers().items() if precision in it.precisions]
        hint = f"{' or '.join(able)} runs {precision}" if able else "no engine here runs that"
        raise EngineError(
            f"engine {name!r} runs {' or '.join(provider.precisions)}, "
            f"got precision {precision!r}; {hint}"
        )
    _require_package(name)
    return EngineChoice(name, precision, reason, provider.device)


def stand_in_precision(name: str, wanted: str) -> str:
    """The precision in which a provider runs a configuration that was written for another one.

    Args:
        name: one of ENGINE_NAMES.
        wanted: the precision that the configuration names, e.g. "fp16" for a GPU.

    Returns:
        `wanted` if the provider runs it, else "fp16" on a GPU and "fp32" on a CPU.

    Raises:
        EngineError: there is no such engine or precision.
    """
    provider = _provider(name)
    if wanted not in PRECISIONS:
        raise EngineError(unknown_name("precision", wanted, PRECISIONS))
    return wanted if wanted in provider.precisions else _default_precision(provider)


def suggested_batch_size(choice: EngineChoice) -> int:
    """The batch size that a configuration without one of its own should have.

    On a CPU in fp32 one row keeps a core busy, and more rows mostly leave its caches: they gain
    little or lose, and every row waits for all. In bf16 the weights are rearranged for the CPU's
    matrix units, and two rows share the cost of that; more would mostly wait for each other.
    On a GPU 32 rows take a few times as long as one. A batch leaves as soon as an instance is idle,
    so room for more makes nobody wait.
    """
    if choice.device == "cuda":
        return 32
    return 1 if choice.precision == "fp32" else 2


def suggested_instances(choice: EngineChoice) -> int | None:
    """How many instances an engine should have, or None for as many as fit the cores.

    On a GPU one with large batches: two compute no more images a second than one, and each gets
    half of the batch.
    """
    return 1 if choice.device == "cuda" else None


def fitting_instances(choice: EngineChoice, instance_num: int) -> int:
    """How many of `instance_num` instances of an engine make sense on this host."""
    if choice.device == "cuda":
        return instance_num
    per_core = _provider(choice.name).contexts_per_core
    return fitting_contexts(instance_num, contexts_per_core=per_core)


def load_engine(choice: EngineChoice, model: OnnxModel, options: EngineOptions) -> Engine:
    """Load a model into the chosen engine, and log what runs.

    Args:
        choice: what `choose_engine` returned.
        model: the model.
        options: how to run it; `choice.precision` takes the place of its precision.

    Raises:
        EngineError: the engine cannot load the model.
    """
    for spec in model.inputs:
        if None in spec.item_shape:
            raise EngineError(
                f"{model.path}: input {spec.name!r} has no fixed size; give it one with "
                f"OnnxModel.with_input_size, or export the model with one"
            )
    options = replace(options, precision=choice.precision)
    engine = _provider_class(choice.name)(model, options)
    _logger.info(
        "engine %s (%s): %s, %s, %d contexts x %d threads",
        choice.name,
        choice.reason,
        model.name,
        options.precision,
        options.num_contexts,
        options.threads_per_context,
    )
    return engine


def _default_precision(provider: _Provider) -> str:
    return "fp16" if provider.device == "cuda" else "fp32"


def _best(precision: str | None) -> tuple[str, str]:
    if cuda_available():
        if _has_tensorrt() and precision in (None, *_CUDA_PROVIDERS["tensorrt"].precisions):
            return "tensorrt", "the fastest on an NVIDIA GPU"
        if precision in (None, *_CUDA_PROVIDERS["torch"].precisions):
            return "torch", "the fastest on an NVIDIA GPU without TensorRT"
    if precision in ("bf16", "int8"):
        return "openvino", f"the fastest in {precision} on a CPU"
    return "onnxruntime", "the default on a CPU"


def _has_tensorrt() -> bool:
    return find_spec(_CUDA_PROVIDERS["tensorrt"].package) is not None


def _require_package(name: str) -> None:
    provider = _providers()[name]
    if find_spec(provider.package) is None:
        raise EngineError(
            f"engine {name!r} needs the package {provider.package}; install it with: "
            f"pip install '{provider.install}'"
        )


def _provider_class(name: str) -> type[Engine]:
    _require_package(name)
    module, _, attribute = _providers()[name].target.partition(":")
    provider: type[Engine] = getattr(importlib.import_module(module), attribute)
    return provider
