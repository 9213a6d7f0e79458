"""What becomes of a batch's outputs: `postprocessor` of TensorrtTensor, by torchpipe's names.

Outputs arrive on the host whatever the engine, so "split" and "cpu" mean the same here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from engine.onnx_graph.activations import AUTO, SIGMOID, SOFTMAX
from engine.onnx_graph.model import OnnxModel
from engine.scoring import Scoring, scoring_of
from engine.tensor_spec import TensorSpec
from pipeline.errors import PipelineConfigError
from pipeline.language.settings import read_text


@dataclass(frozen=True)
class Postprocessor:
    """Turns a batch's outputs into one result an item.

    Attributes:
        name: as torchpipe spells it.
        results: takes the model's outputs, tensors on the host that the next batch may overwrite,
            and gives the results of their rows, in order.
        softmax: whether it puts the scores through a softmax.
        gives_tensors: whether a result is a tensor of one row, or a list of such tensors if the
            model has several outputs.
    """

    name: str
    results: Callable[[Sequence[torch.Tensor]], list[Any]]
    softmax: bool
    gives_tensors: bool

    def check(self, model: OnnxModel) -> None:
        """Refuse a model whose outputs it cannot take.

        Raises:
            PipelineConfigError: a softmax is to follow what is one already; there is no output of
                shape (rows, classes) for it; or a class is to be found among several outputs.
        """
        if not self.softmax:
            return
        if model.outputs_probabilities:
            raise PipelineConfigError(
                f"postprocessor = {self.name}: {model.name} gives probabilities already, and a "
                'second softmax would falsify them; use postprocessor = "split"'
            )
        if not self.gives_tensors and len(model.outputs) != 1:
            raise PipelineConfigError(
                f"postprocessor = {self.name} needs a model with one output; {model.name} has "
                f"{len(model.outputs)}"
            )
        if not any(_is_row_of_scores(output) for output in model.outputs):
            shapes = ", ".join(str(output.shape) for output in model.outputs)
            raise PipelineConfigError(
                f"postprocessor = {self.name} needs an output of shape (rows, classes); those of "
                f"{model.name} are {shapes}"
            )


def check_activation(settings: Mapping[str, Any]) -> None:
    """Refuse a sigmoid behind the softmax of a postprocessor.

    Args:
        settings: those of TensorrtTensor.

    Raises:
        PipelineConfigError: the settings contradict each other.
    """
    postprocessor = settings["postprocessor"]
    if postprocessor.softmax and settings["output_activation"] == SIGMOID:
        raise PipelineConfigError(
            f"postprocessor = {postprocessor.name} makes a softmax, and output_activation = "
            f'"sigmoid" would falsify it; use postprocessor = "split" with it, or leave it out'
        )


def scoring_of_results(model: OnnxModel, settings: Mapping[str, Any]) -> Scoring:
    """How the results of a TensorrtTensor with these settings become scores.

    Raises:
        EngineError: they cannot, see `engine.scoring.scoring_of`.
    """
    has_softmax, activation = settings["postprocessor"].softmax, settings["output_activation"]
    if has_softmax and activation == SOFTMAX:
        activation = AUTO
    return scoring_of(model, activation, has_softmax=has_softmax)


def _is_row_of_scores(output: TensorSpec) -> bool:
    return len(output.shape) == 2


def _split(outputs: Sequence[torch.Tensor]) -> list[Any]:
    return _by_item([_copied_rows(output) for output in outputs])


def _softmax_split(outputs: Sequence[torch.Tensor]) -> list[Any]:
    """Outputs that are no rows of scores are left as they are, as torchpipe leaves them."""
    return _by_item(
        [
            list(_softmax(output).split(1)) if output.ndim == 2 else _copied_rows(output)
            for output in outputs
        ]
    )


def _softmax_max(outputs: Sequence[torch.Tensor]) -> list[Any]:
    scores, classes = _softmax(outputs[0]).max(dim=1)
    return list(zip(classes.tolist(), scores.tolist(), strict=True))


def _softmax(output: torch.Tensor) -> torch.Tensor:
    """In float32, whatever the engine computes in, as `engine.classifier.probabilities` does."""
    return torch.softmax(output, dim=1, dtype=torch.float32)


def _by_item(rows_by_output: list[list[torch.Tensor]]) -> list[Any]:
    """One output's rows as they are; with several outputs a list of each item's rows."""
    if len(rows_by_output) == 1:
        return rows_by_output[0]
    return [list(rows) for rows in zip(*rows_by_output, strict=True)]


def _copied_rows(output: torch.Tensor) -> list[torch.Tensor]:
    """The rows of a host tensor, copied; by NumPy, which asks for the interpreter's lock once."""
    if output.dtype == torch.bfloat16:  # which NumPy does not know
        return list(output.clone().split(1))
    rows = output.numpy().copy()
    return [torch.from_numpy(rows[index : index + 1]) for index in range(len(rows))]


SPLIT = Postprocessor("split", _split, softmax=False, gives_tensors=True)
"""A tensor of one row for each item."""
_KNOWN = {
    postprocessor.name.lower(): postprocessor
    for postprocessor in (
        SPLIT,
        Postprocessor("cpu", _split, softmax=False, gives_tensors=True),
        Postprocessor("SoftmaxCpu", _softmax_split, softmax=True, gives_tensors=True),
        # A class's number and its probability, an int and a float.
        Postprocessor("SoftmaxMax", _softmax_max, softmax=True, gives_tensors=False),
    )
}
POSTPROCESSOR_NAMES = ", ".join(f'"{postprocessor.name}"' for postprocessor in _KNOWN.values())


def is_postprocessor(name: str) -> bool:
    """Whether one has that name, in any case."""
    return name.lower() in _KNOWN


def read_postprocessor(value: Any) -> Postprocessor:
    """A postprocessor by its name, in any case."""
    name = read_text(value).lower()
    if not is_postprocessor(name):
        raise ValueError(value)
    return _KNOWN[name]
