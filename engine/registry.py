"""Which engines there are, which one runs, and why."""

from __future__ import annotations

import importlib
import logging
from dataclasses import dataclass, replace
from importlib.util import find_spec

from engine.cpu import fitting_contexts
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
    # OpenVINO computes in threads of its own. With one request a core they would idle while the
    # instance fetches a result and the next batch: with 1.5, 6 % more images a second in bf16.
    contexts_per_core: float = 1.0


_PROVIDERS = {
    "onnxruntime": _Provider(
        "engine.providers.onnxruntime:OnnxRuntimeEngine", "onnxruntime", "thriftpipe", ("fp32",)
    ),
    "openvino": _Provider(
        "engine.providers.openvino:OpenVinoEngine",
        "openvino",
        "thriftpipe[openvino]",
        ("fp32", "bf16"),
        contexts_per_core=1.5,
    ),
    "torch": _Provider(
        "engine.providers.torch:TorchEngine", "torch", "thriftpipe", ("fp32", "bf16")
    ),
}
ENGINE_NAMES = tuple(_PROVIDERS)
AUTO = "auto"
PRECISIONS = ("fp32", "bf16", "fp16", "int8")
_DEFAULT_PRECISION = "fp32"


@dataclass(frozen=True)
class EngineChoice:
    """The engine that runs.

    Attributes:
        name: one of ENGINE_NAMES.
        precision: one that it runs.
        reason: why it was chosen, as a short phrase.
    """

    name: str
    precision: str
    reason: str


def choose_engine(requested: str, precision: str | None = None) -> EngineChoice:
    """Decide which engine runs.

    Args:
        requested: one of ENGINE_NAMES, or "auto" for the fastest that this host has.
        precision: the precision to run, or None for fp32.

    Raises:
        EngineError: there is no such engine or precision, the engine does not run that precision,
            or its package is not installed.
    """
    precision = precision or _DEFAULT_PRECISION
    if precision not in PRECISIONS:
        raise EngineError(unknown_name("precision", precision, PRECISIONS))
    if requested == AUTO:
        name, reason = _best(precision)
    elif requested in _PROVIDERS:
        name, reason = requested, "asked for by name"
    else:
        raise EngineError(unknown_name("engine", requested, [AUTO, *ENGINE_NAMES]))
    if precision not in _PROVIDERS[name].precisions:
        able = [other for other, it in _PROVIDERS.items() if precision in it.precisions]
        hint = f"{' or '.join(able)} runs {precision}" if able else "no engine here runs that"
        raise EngineError(
            f"engine {name!r} runs {' or '.join(_PROVIDERS[name].precisions)}, "
            f"got precision {precision!r}; {hint}"
        )
    _require_package(name)
    return EngineChoice(name, precision, reason)


def stand_in_precision(name: str, wanted: str) -> str:
    """The precision in which a provider runs a configuration that was written for another one.

    Args:
        name: one of ENGINE_NAMES.
        wanted: the precision that the configuration names, e.g. "fp16" for a GPU.

    Returns:
        `wanted` if the provider runs it, else "fp32".

    Raises:
        EngineError: there is no such engine or precision.
    """
    if name not in _PROVIDERS:
        raise EngineError(unknown_name("engine", name, ENGINE_NAMES))
    if wanted not in PRECISIONS:
        raise EngineError(unknown_name("precision", wanted, PRECISIONS))
    return wanted if wanted in _PROVIDERS[name].precisions else _DEFAULT_PRECISION


def suggested_batch_size(choice: EngineChoice) -> int:
    """The batch size that a configuration without one of its own should have.

    On a CPU in fp32 one row keeps a core busy, and more rows mostly leave its caches: they gain
    little or lose, and every row waits for all. In bf16 the weights are rearranged for the CPU's
    matrix units, and two rows share the cost of that; more would mostly wait for each other.
    """
    return 1 if choice.precision == "fp32" else 2


def fitting_instances(choice: EngineChoice, instance_num: int) -> int:
    """How many of `instance_num` instances of an engine make sense on this host."""
    per_core = _PROVIDERS[choice.name].contexts_per_core
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


def _best(precision: str) -> tuple[str, str]:
    if precision == "bf16":
        return "openvino", "the fastest in bf16 on a CPU"
    return "onnxruntime", "the default on a CPU"


def _require_package(name: str) -> None:
    provider = _PROVIDERS[name]
    if find_spec(provider.package) is None:
        raise EngineError(
            f"engine {name!r} needs the package {provider.package}; install it with: "
            f"pip install '{provider.install}'"
        )


def _provider_class(name: str) -> type[Engine]:
    _require_package(name)
    module, _, attribute = _PROVIDERS[name].target.partition(":")
    provider: type[Engine] = getattr(importlib.import_module(module), attribute)
    return provider
