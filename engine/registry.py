"""Which engines there are, which one runs, and why."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pkgutil import resolve_name

from engine.cache.encrypted_file import key_in, require_encryption
from engine.cache.engine_cache import check_folder, is_encrypted
from engine.contexts.cuda_device import cuda_available
from engine.cpu.cores import available_cores, fitting_contexts
from engine.errors import EngineError, MissingOnHostError
from engine.int8.calibration import calibration_images
from engine.interface import Engine
from engine.onnx_graph.model import OnnxModel
from engine.options import EngineOptions
from interfaces.engines import PRECISIONS, PROVIDERS, Provider
from interfaces.names import unknown_name

_logger = logging.getLogger(__name__)


ENGINE_NAMES = tuple(dict.fromkeys(provider.name for provider in PROVIDERS))
AUTO = "auto"


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


def _providers() -> dict[str, Provider]:
    """What this machine can run, by name."""
    has_gpu = cuda_available()
    return {
        provider.name: provider for provider in PROVIDERS if has_gpu or provider.device == "cpu"
    }


def _provider(name: str) -> Provider:
    """The provider of that name on this machine; EngineError if there is none."""
    if name not in ENGINE_NAMES:
        raise EngineError(unknown_name("engine", name, [AUTO, *ENGINE_NAMES]))
    providers = _providers()
    if name not in providers:
        raise MissingOnHostError(
            f"engine {name!r} needs an NVIDIA GPU and a CUDA build of torch, and this machine "
            f"lacks them; it has {', '.join(providers)}"
        )
    return providers[name]


def choose_engine(requested: str, precision: str | None = None) -> EngineChoice:
    """Decide which engine runs.

    Args:
        requested: one of ENGINE_NAMES, or "auto" for the fastest that this machine has.
        precision: the precision to run, or None for fp16 on a GPU and fp32 on a CPU.

    Raises:
        EngineError: there is no such engine or precision, or the engine does not run that one.
        MissingOnHostError: its package or its device is missing.
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


def why_not_here(provider: Provider, precision: str) -> str:
    """Why a provider cannot run a precision on this machine; "" where it can."""
    if provider.device == "cuda" and not cuda_available():
        return "needs an NVIDIA GPU and a CUDA build of torch"
    if find_spec(provider.package) is None:
        return f"pip install '{provider.install}'"
    try:
        target: type[Engine] = resolve_name(provider.target)
        target.check_host(precision)
    except EngineError as error:
        return str(error)
    return ""


def fallback_precision(name: str, wanted: str) -> str:
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


def package_of(choice: EngineChoice) -> str:
    """The package that computes."""
    return _provider(choice.name).package


def suggested_batch_size(choice: EngineChoice) -> int:
    """The batch size that a configuration without one of its own should have.

    On a CPU in fp32 one row keeps a core busy, and more rows mostly leave its caches: they gain
    little or lose, and every row waits for all. In bf16 the weights are rearranged for the CPU's
    matrix units, and two rows share the cost of that; more would mostly wait for each other.
    On a GPU 32 rows take a few times as long as one. A batch leaves as soon as an instance is idle,
    so room for more costs no waiting.
    """
    if choice.device == "cuda":
        return 32
    return 1 if choice.precision == "fp32" else 2


def suggested_instances(choice: EngineChoice) -> int:
    """How many instances an engine should have on this machine.

    On a CPU one a core. On a GPU one with large batches: two compute no more images a second than
    one, and each gets half of the batch.
    """
    return 1 if choice.device == "cuda" else available_cores()


def fitting_instances(choice: EngineChoice, instance_num: int) -> int:
    """How many of `instance_num` instances of an engine make sense on this machine."""
    return instance_num if choice.device == "cuda" else fitting_contexts(instance_num)


def loading_errors(choice: EngineChoice, options: EngineOptions) -> Iterator[EngineError]:
    """What any model would be refused for, found without loading one.

    Args:
        choice: what `choose_engine` returned.
        options: how the engine is to run.

    Yields:
        The errors that `load_engine` would raise, one for each thing that is missing: instructions
        of the CPU, folder, key and package of a cache, images for int8.
    """
    provider = _provider_class(choice.name)
    checks: list[Callable[[], object]] = [partial(provider.check_host, choice.precision)]
    if provider.keeps_cache and options.cache_path is not None:
        checks.append(partial(check_folder, options.cache_path, "engine cache"))
        if is_encrypted(options.cache_path):
            checks += [require_encryption, partial(key_in, options.cache_key_file)]
    if choice.name == "tensorrt" and options.timing_cache_path is not None:
        checks.append(partial(check_folder, options.timing_cache_path, "timing cache"))
    if choice.precision == "int8":
        checks.append(partial(calibration_images, options))
    for check in checks:
        try:
            check()
        except EngineError as error:
            yield error


def load_engine(choice: EngineChoice, model: OnnxModel, options: EngineOptions) -> Engine:
    """Load a model into the chosen engine, and log what runs.

    Args:
        choice: what `choose_engine` returned.
        model: the model.
        options: how to run it; `choice.precision` takes the place of its precision, and 1 that of
            the rows of a batch where the model takes no others.

    Raises:
        EngineError: the engine cannot load the model, or would run batches that it mixes up.
    """
    if why := model.trial.only_alone:
        _logger.log(
            logging.INFO if options.max_batch_size == 1 else logging.WARNING,
            "%s runs batches of one row, which its file fixes (%s); export it again with a dynamic "
            "batch dimension for larger ones",
            *(model.name, why),
        )
        options = replace(options, max_batch_size=1, profiles=())
    if options.max_batch_size > 1:
        model.check_outputs()
    check_sizes(model)
    options = replace(options, precision=choice.precision)
    provider = _provider_class(choice.name)
    if options.cache_path is not None and not provider.keeps_cache:
        _logger.info("engine %s keeps nothing in a cache: it is ignored", choice.name)
    engine = provider(model, options)
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


def check_sizes(model: OnnxModel) -> None:
    """Raise EngineError where a size other than the batch's is left open, and has no limits."""
    for spec in model.inputs:
        if spec.is_open and not spec.limits:
            raise EngineError(
                f"{model.path}: input {spec} has no fixed size; export the model with one, or name "
                f'it: --input-size 224, or in a TOML file max = "4x3x224x224", and for images of '
                f'several sizes also the smallest: min = "1x3x64x64"'
            )


def _default_precision(provider: Provider) -> str:
    return "fp16" if provider.device == "cuda" else "fp32"


def _best(precision: str | None) -> tuple[str, str]:
    providers = _providers()
    tensorrt, torch = providers.get("tensorrt"), providers["torch"]
    if tensorrt and find_spec(tensorrt.package) and precision in (None, *tensorrt.precisions):
        return "tensorrt", "the fastest on an NVIDIA GPU"
    if torch.device == "cuda" and precision in (None, *torch.precisions):
        return "torch", "the fastest on an NVIDIA GPU without TensorRT"
    if precision in ("bf16", "int8"):
        return "openvino", f"the fastest in {precision} on a CPU"
    return "onnxruntime", "the default on a CPU"


def _require_package(name: str) -> None:
    provider = _providers()[name]
    if find_spec(provider.package) is None:
        raise MissingOnHostError(
            f"engine {name!r} needs the package {provider.package}; install it with: "
            f"pip install '{provider.install}'"
        )


def _provider_class(name: str) -> type[Engine]:
    _require_package(name)
    provider: type[Engine] = resolve_name(_providers()[name].target)
    return provider
