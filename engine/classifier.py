"""What a handler needs to know of a classifier beyond its graph."""

from __future__ import annotations

import logging

from engine.errors import EngineError
from engine.normalization import IMAGENET_NORMALIZATION, PLAIN_PIXELS, Normalization
from engine.onnx_graph.fused_input import first_arithmetic
from engine.onnx_graph.model import OnnxModel

logger = logging.getLogger(__name__)

_UNIT_PIXELS = Normalization((0.0,), (255.0,))
_USUAL_SIZE = (224, 224)


def classifier_input(
    model: OnnxModel,
    layout: str | None = None,
    color: str | None = None,
    size: tuple[int, int] | None = None,
    crop: tuple[int, int] | None = None,
) -> OnnxModel:
    """The model for R, G and B of an image of one size, whatever its file wants; the log says what.

    Args:
        model: the model.
        layout: as in `OnnxModel.with_image_input`.
        color: as there.
        size: height and width, in pixels, that the file leaves open, as `--input-size` says.
        crop: likewise, as `--crop` says. Where the file leaves the size open and neither is given,
            it is 224x224.

    Raises:
        EngineError: it takes no such image, or fixes another size.
    """
    image = model.with_image_input(layout, color)
    (spec,) = image.inputs
    if image.image_format is not None and not image.image_format.is_usual:
        logger.info("%s takes images as %s: %s", *(model.name, image.image_format, model.inputs[0]))
    if not spec.is_open:
        return image if size is None else image.with_input_size(*size)
    size = size or crop
    _, *open_size = spec.item_shape
    height, width = size or (
        fixed or usual for fixed, usual in zip(open_size, _USUAL_SIZE, strict=True)
    )
    sized = image.with_input_size(height, width)
    logger.info(
        "%s leaves the size of its images open (%s): %dx%d is used%s",
        *(model.name, model.inputs[0], height, width),
        "" if size else ", the usual one; --input-size names another",
    )
    return sized


def input_size(model: OnnxModel) -> tuple[int, int]:
    """Height and width, in pixels, of what `classifier_input` gives."""
    size = model.input_size
    assert size is not None  # noqa: S101 (that is what it is for)
    return size


def classifier_normalization(
    model: OnnxModel, mean: tuple[float, ...] | None, std: tuple[float, ...] | None
) -> Normalization | None:
    """How the model wants its pixels: as given, else as the model declares, else ImageNet's.

    A model of one channel that declares nothing gets pixels of 0 to 1.

    Returns:
        None for a model that takes bytes, whose pixels are never normalized.

    Raises:
        EngineError: only one of mean and std is given, or they do not suit the model.
    """
    if (mean is None) != (std is None):
        raise EngineError(
            f"mean and std go together; {'mean' if mean is None else 'std'} is missing"
        )
    image = model.with_image_input()
    given = None if mean is None or std is None else Normalization(mean, std)
    if given is not None or image.takes_bytes:
        image.check_normalization(given)
        return None if image.takes_bytes else given
    if model.declared_normalization is not None:
        return model.declared_normalization
    if image.takes_grey:
        logger.warning(
            "%s takes one channel and declares no mean and std: it gets pixels of 0 to 1 (mean 0, "
            "std 255); if it wants others, labels will be wrong: see --mean and --std",
            model.name,
        )
        return _UNIT_PIXELS
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


def contradiction_of(model: OnnxModel, given: Normalization | None) -> str:
    """That a model's file declares other values, or unusable ones; "" where it does not.

    Args:
        model: the model.
        given: what it gets; None for pixels as they are.
    """
    try:
        return contradiction(model.name, model.declared_normalization, given or PLAIN_PIXELS)
    except EngineError as error:
        return str(error)


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
