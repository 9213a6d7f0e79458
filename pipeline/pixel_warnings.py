"""Warnings of models that get pixels of another range than they want, which no error tells.

They get pixels of 0 to 255 as they are, or with the mean and std of another model.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.classifier import contradiction
from engine.errors import EngineError
from engine.normalization import IMAGENET_NORMALIZATION, Normalization
from engine.onnx_graph.file import read_structure
from engine.onnx_graph.fused_input import scales_its_image
from engine.onnx_graph.metadata import read_normalization
from engine.zoo.store import ZOO
from pipeline.backends import opencv
from pipeline.backends.engine_settings import normalization
from pipeline.backends.gpu_decoding import DecodeTensor
from pipeline.backends.inference import TensorrtTensor
from pipeline.backends.interface import Backend
from pipeline.config import NodeConfig

DECODERS = (opencv.DecodeMat, DecodeTensor)
"""What decodes images."""
_PACKAGED = "pipeline.backends."


def pixel_warnings(nodes: Iterable[NodeConfig]) -> Iterator[str]:
    """A warning for each model whose file says that it wants other pixels than it gets."""
    found = [(node.name, backend) for node in nodes for backend in node.backends()]
    decoded = _are_decoded_here([backend.cls for _, backend in found])
    for node, backend in found:
        if backend.cls is TensorrtTensor:
            settings = backend.settings
            warning = _contradiction(settings) or _half(settings)
            if decoded and settings["mean"] is None and settings["std"] is None:
                warning = _raw_pixels(settings["model"])
            if warning:
                yield f"[{node}] {warning}"


def _are_decoded_here(classes: Sequence[type[Backend]]) -> bool:
    """Whether images are decoded, by packaged operators only: the user's own may normalise them."""
    return any(issubclass(cls, DECODERS) for cls in classes) and all(
        cls.__module__.startswith(_PACKAGED) for cls in classes
    )


def _raw_pixels(model: str | None) -> str | None:
    """What to say of a model without mean and std; None where it scales its image itself."""
    advice = _advice(model)
    return advice and (
        f"has neither mean nor std, so {model} gets pixels of 0 to 255 as they are; {advice}. If "
        'that is meant, write mean = "0" and std = "1"'
    )


def _contradiction(settings: Mapping[str, Any]) -> str | None:
    """What to say of other mean and std than the file or the zoo declares."""
    model = settings["model"]
    try:
        given = normalization(settings)
        if given is None:
            return None
        text = contradiction(model, _declared(model), given)
    except EngineError:
        return None  # loading the model reports it
    return text and f"{text}. One of them is a mistake, and labels may be wrong"


def _half(settings: Mapping[str, Any]) -> str | None:
    """What to say of a mean without std, and of a std without mean, which torchpipe allows."""
    if settings["mean"] is None and settings["std"] is not None:
        return 'has std and no mean, so nothing is subtracted; if that is meant, write mean = "0"'
    if settings["std"] is None and settings["mean"] is not None:
        return 'has mean and no std, so nothing is divided; if that is meant, write std = "1"'
    return None


def _advice(model: str | None) -> str | None:
    """Which mean and std to write, or None where the model needs none or cannot be read."""
    try:
        if model in ZOO:
            return f"it needs {_as_toml(ZOO[model].normalization)}"
        proto = None if model is None else read_structure(model)
        if proto is None or scales_its_image(proto):
            return None
        declared = read_normalization(proto, Path(str(model)))
    except EngineError as error:
        return f"what it needs is unknown: {error}"
    if declared is not None:
        return f"it declares {_as_toml(declared)}"
    return f"ImageNet's are {_as_toml(IMAGENET_NORMALIZATION)}"


def _declared(model: str | None) -> Normalization | None:
    if model in ZOO:
        return ZOO[model].normalization
    proto = None if model is None else read_structure(model)
    return None if proto is None else read_normalization(proto, Path(str(model)))


def _as_toml(normalization: Normalization) -> str:
    mean, std = (
        ", ".join(f"{value:g}" for value in values)
        for values in (normalization.mean, normalization.std)
    )
    return f'mean = "{mean}" and std = "{std}"'
