"""What a handler needs to know of a classifier beyond its graph."""

from __future__ import annotations

import logging

import numpy as np
import numpy.typing as npt
import torch

from engine.interface import EngineError
from engine.onnx_model import IMAGENET_NORMALIZATION, Normalization, OnnxModel

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
    return IMAGENET_NORMALIZATION


def classifier_input_size(model: OnnxModel) -> tuple[int, int]:
    """Height and width in pixels of the images that the model takes.

    Raises:
        EngineError: the model leaves them open.
    """
    if model.input_size is None:
        raise EngineError(
            f"{model.name} leaves the height and width of its input open; "
            "export it with a fixed size"
        )
    return model.input_size


def probabilities(output: torch.Tensor, *, are_probabilities: bool) -> npt.NDArray[np.float32]:
    """A model's output as float32 probabilities of shape (rows, classes).

    Args:
        output: probabilities or logits.
        are_probabilities: which of the two, as `OnnxModel.outputs_probabilities` says.
    """
    # No needless call of torch: each gives the interpreter's lock away, in every request's thread.
    plain = output.dtype == torch.float32 and not output.is_cuda
    scores: npt.NDArray[np.float32] = (output if plain else output.float().cpu()).numpy()
    scores = scores.reshape(len(scores), -1)
    if are_probabilities:
        return scores
    return torch.softmax(torch.from_numpy(scores), dim=1).numpy()
