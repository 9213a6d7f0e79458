"""From a classifier's output to scores: softmax, sigmoid, or neither."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from engine.errors import EngineError
from engine.onnx_graph.activations import AUTO, NONE, OUTPUT_ACTIVATIONS, SIGMOID, SOFTMAX
from engine.onnx_graph.model import OnnxModel
from interfaces.names import unknown_name

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Scoring:
    """How a row of a model's output becomes scores.

    Attributes:
        activation: "softmax", "sigmoid", or "none" for an output that is scores already.
        num_classes: scores of an image. A model with one value p for an image, after the
            activation, has two: 1 - p and p.
    """

    activation: str
    num_classes: int

    def scores(self, output: torch.Tensor) -> npt.NDArray[np.float32]:
        """Scores of shape (rows, classes); of logits that have overflowed they are NaN.

        Args:
            output: the model's, of shape (rows, ...) with one value or one for each class.
        """
        # No needless call of torch: each gives the interpreter's lock away, in every request's
        # thread.
        plain = output.dtype == torch.float32 and not output.is_cuda and not output.requires_grad
        on_cpu = output if plain else output.detach().float().cpu()
        values: npt.NDArray[np.float32] = on_cpu.numpy()
        values = values.reshape(len(values), -1)
        if self.activation == SOFTMAX:
            values = torch.softmax(torch.from_numpy(values), dim=1).numpy()
        elif self.activation == SIGMOID:
            # What overflowed is no certainty, which the sigmoid would make of it.
            values = np.where(values == np.inf, np.float32(np.nan), values)
            values = torch.sigmoid(torch.from_numpy(values)).numpy()
        if values.shape[1] == 1:
            values = np.concatenate([1 - values, values], axis=1)
        return values


def check_results(results: object) -> None:
    """Refuse what `Scoring.scores` cannot take, whatever made it; TypeError or ValueError."""
    wanted = "expected a tensor of one row of scores for each image"
    if not isinstance(results, torch.Tensor):
        raise TypeError(f"the result is no scores: {wanted}, got {type(results).__name__}")
    if results.layout is not torch.strided or not results.ndim or not results.numel():
        raise ValueError(
            f"the result is no scores: {wanted}, got one of layout {results.layout} and shape "
            f"{tuple(results.shape)}"
        )


def scoring_of(model: OnnxModel, activation: str = AUTO, *, has_softmax: bool = False) -> Scoring:
    """How to read the first output of a classifier.

    Args:
        model: the model.
        activation: one of OUTPUT_ACTIVATIONS; "auto" is "none" for a model that gives the output of
            a softmax or sigmoid, else "softmax".
        has_softmax: whether a softmax has been put behind the model already.

    Raises:
        EngineError: no such activation, an output that is no row of scores, an activation behind
            one that the model has, a softmax over one value, or one value that is no probability.
    """
    if activation not in OUTPUT_ACTIVATIONS:
        raise EngineError(unknown_name("output activation", activation, OUTPUT_ACTIVATIONS))
    in_graph = "Softmax" if has_softmax else model.final_activation
    output, size = model.outputs[0], model.num_scores
    if in_graph and activation in (SOFTMAX, SIGMOID):
        raise EngineError(
            f"output activation {activation!r}: {model.name} gives the output of a {in_graph} "
            f"already, and a second activation would falsify it; use 'none' or 'auto'"
        )
    chosen = activation
    if activation == AUTO:
        chosen = NONE if in_graph else SOFTMAX
    if size == 1 and SOFTMAX in (chosen, in_graph.lower()):
        raise EngineError(
            f"{model.path} has one output value for an image, {output}, and a softmax "
            f"over one value is always 1. If it is the logit of the second of two classes, use "
            f"--output-activation sigmoid, or 'none' if it is its probability; in a TOML file "
            f'output_activation = "sigmoid"'
        )
    if not in_graph:
        if activation == AUTO:
            _refuse_shares(model)
        _look_at_values(model, chosen, size)
    scoring = Scoring(chosen, max(size, 2))
    # Nothing was decided where the graph says it itself.
    _logger.log(
        logging.DEBUG if in_graph and activation == AUTO else logging.INFO,
        "%s: scores are %s of output %s%s%s",
        model.name,
        "the values" if chosen == NONE else f"the {chosen}",
        output,
        f", which is that of a {in_graph}" if in_graph else "",
        ", as 1 - p and p of two classes" if size == 1 else "",
    )
    return scoring


def _refuse_shares(model: OnnxModel) -> None:
    """Ask what is meant where the values may be probabilities that a softmax would falsify."""
    name = model.outputs[0].name
    values = model.trial.ranges.get(name)
    if values is None or not values.may_be_shares:
        return
    whole = f"{values.total:.3g}"
    factor, way_out = "", "use"
    if whole != "1":
        factor, way_out = (
            f" times {whole}",
            "export the model without that factor, or serve them with",
        )
    raise EngineError(
        f"{model.name}: the values of output {name!r} are never negative and add up to {whole} for "
        f"each of {values.inputs} made-up inputs, as probabilities{factor} do: if they are some, "
        f"{way_out} --output-activation none; if they are logits, use --output-activation softmax; "
        f'in a TOML file output_activation = "none" or "softmax"'
    )


def _look_at_values(model: OnnxModel, chosen: str, size: int) -> None:
    """Compare what the model gave in its trial with what is to become of it."""
    name = model.outputs[0].name
    values = model.trial.ranges.get(name)
    if values is None:
        return
    if chosen != NONE:
        if values.may_be_scores:
            _logger.warning(
                "%s: all values of output %r for made-up inputs are of 0 to 1, as after a sigmoid, "
                "and they get a %s; if they are scores already, use --output-activation none",
                *(model.name, name, chosen),
            )
        return
    if values.is_within_1:
        return
    found = f"from {values.lowest:.4g} to {values.highest:.4g} for made-up inputs"
    if size == 1:
        raise EngineError(
            f"output activation 'none': {model.name} has one value for an image, which is to be "
            f"the probability of the second of two classes, but output {name!r} is {found}; if it "
            f"is a logit, use --output-activation sigmoid"
        )
    _logger.warning(
        "%s: scores are the values of output %r as they are, and these are no probabilities: they "
        "are %s; see --output-activation softmax and sigmoid",
        *(model.name, name, found),
    )
