"""What a handler needs to know of a classifier beyond its graph."""

from __future__ import annotations

import logging

from engine.errors import EngineError
from engine.normalization import IMAGENET_NORMALIZATION, Normalization
from engine.onnx_graph.fused_normalization import first_arithmetic
from engine.onnx_graph.model import OnnxModel

logger = logging.getLogger(__name__)


def classifier_normalization(
    model: OnnxModel, mean: tuple[float, ...] | None, std: tuple[float, ...] | None
) -> Normalization:
    """How the model wants its pixels: as given, else as the model declares, else ImageNet's.

    Raises:
        EngineError: only one of mean and std is given.
    """
    if (mean is None) != (std is None):
        raise EngineError(
            f"mean and std go together; {'mean' if mean is None else 'std'} is missing"
        )
    if mean is not None and std is not None:
        return Normalization(mean, std)
    if model.declared_normalization is not None:
        return model.declared_normalization
    logger.info("%s declares no mean and std: using ImageNet's; see --mean and --std", model.name)
    if arithmetic := first_arithmetic(model.proto):
        logger.warning(
            "%s gets pixels with ImageNet's mean and std, and begins with a %s of them, as graphs "
            "do that normalize their image: if this one does, labels will be wrong; use --mean 0 "
            "--std 1 if it takes pixels of 0 to 255, --mean 0 --std 255 if it takes 0 to 1",
            *(model.name, arithmetic),
        )
    return IMAGENET_NORMALIZATION


def contradiction(name: str, declared: Normalization | None, given: Normalization) -> str:
    """That a model declares other values than it is given; "" where it does not."""
    if declared is None or not given.differs_from(declared):
        return ""
    return (
        f"mean {_joined(given.mean)} and std {_joined(given.std)} are not what {name} declares: "
        f"mean {_joined(declared.mean)} and std {_joined(declared.std)}"
    )


def contradiction_of(model: OnnxModel, given: Normalization) -> str:
    """That a model's file declares other values, or unusable ones; "" where it does not."""
    try:
        return contradiction(model.name, model.declared_normalization, given)
    except EngineError as error:
        return str(error)


def classifier_input_size(model: OnnxModel) -> tuple[int, int]:
    """Height and width in pixels of the images that the model takes.

    Raises:
        EngineError: it does not take one image of 3 channels, or leaves the size open.
    """
    spec = model.image_input()
    if model.input_size is None:
        raise EngineError(
            f"{model.name} leaves the height and width of its input open ({spec}); "
            "export it with a fixed size"
        )
    return model.input_size


def classifier_output(model: OnnxModel, name: str | None) -> OnnxModel:
    """The model with the one output that scores the classes, and without any others.

    Args:
        model: the model.
        name: which output, or None for the only one of shape N x classes.

    Raises:
        EngineError: there is no such output, it does not score classes, or several might.
    """
    if name is not None:
        chosen = model.with_output(name)
        _ = chosen.num_scores  # which refuses an output of another shape
        return chosen
    rows = {spec.name: size for spec in model.outputs if (size := spec.row_size) is not None}
    # One value beside rows of several is something else, such as a confidence.
    found = [name for name, size in rows.items() if size > 1] or list(rows)
    outputs = ", ".join(map(str, model.outputs))
    if len(found) != 1:
        raise EngineError(
            f"{model.path} has {len(found) or 'no'} outputs that may score classes, N x classes "
            f"in floating point; it has {outputs}"
            + ("; name the one to serve with --output" if found else "")
        )
    chosen = model.with_output(found[0])
    if len(model.outputs) > 1:
        logger.info(
            "%s has the outputs %s: serving %r, the only one of shape N x classes; see --output",
            *(model.name, outputs, found[0]),
        )
    return chosen


def _joined(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)
