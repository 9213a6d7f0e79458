"""What becomes of a classifier's output: softmax, sigmoid, or what is there."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from engine.errors import EngineError
from engine.onnx_graph.model import OnnxModel
from engine.scoring import Scoring, scoring_of

ProtoFactory = Callable[..., onnx.ModelProto]
OUTPUT = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]])


def model_of(proto: onnx.ModelProto, classes: int = 5) -> OnnxModel:
    """The model; its output is declared to be so many values."""
    proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value = classes
    return OnnxModel(Path("m.onnx"), "", proto)


@pytest.mark.parametrize(
    ("last", "activation", "chosen"),
    [
        ("Identity", "auto", "softmax"),
        ("Softmax", "auto", "none"),
        ("Sigmoid", "auto", "none"),
        ("LogSoftmax", "auto", "softmax"),
        ("Identity", "sigmoid", "sigmoid"),
        ("Identity", "none", "none"),
        ("Softmax", "none", "none"),
    ],
)
def test_auto_looks_at_the_graphs_end_and_says_what_it_found(
    last: str,
    activation: str,
    chosen: str,
    small_proto: ProtoFactory,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.DEBUG):
        assert scoring_of(model_of(small_proto(last=last)), activation) == Scoring(chosen, 5)
    (line,) = (text for text in caplog.messages if "scores are" in text)
    assert "'scores' float32 N x 5" in line
    assert ("the values" if chosen == "none" else f"the {chosen}") in line


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("last", ["Softmax", "Sigmoid"])
def test_a_second_activation_is_refused(
    last: str, activation: str, small_proto: ProtoFactory
) -> None:
    with pytest.raises(EngineError, match=f"gives the output of a {last} already"):
        scoring_of(model_of(small_proto(last=last)), activation)


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 1, 1), (2, 1, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_scores_are_rows_of_float32(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    output = OUTPUT.reshape(shape).to(dtype)
    for activation, expected in (
        ("none", OUTPUT),
        ("softmax", OUTPUT.softmax(1)),
        ("sigmoid", OUTPUT.sigmoid()),
    ):
        result = Scoring(activation, 3).scores(output)
        assert result.dtype == np.float32
        np.testing.assert_allclose(result, expected.numpy(), atol=1e-6)


def test_an_output_that_requires_a_gradient_is_read_too() -> None:
    assert Scoring("none", 3).scores(OUTPUT.clone().requires_grad_()).shape == (2, 3)


@pytest.mark.parametrize(
    ("last", "activation"), [("Identity", "auto"), ("Identity", "softmax"), ("Softmax", "auto")]
)
def test_a_softmax_over_one_value_is_refused(
    last: str, activation: str, small_proto: ProtoFactory
) -> None:
    with pytest.raises(EngineError, match=r"one output value .*--output-activation sigmoid"):
        scoring_of(model_of(small_proto(last=last), classes=1), activation)


@pytest.mark.parametrize(
    ("last", "activation", "chosen"),
    [("Identity", "sigmoid", "sigmoid"), ("Identity", "none", "none"), ("Sigmoid", "auto", "none")],
)
def test_one_value_is_the_probability_of_the_second_of_two_classes(
    last: str, activation: str, chosen: str, small_proto: ProtoFactory
) -> None:
    scoring = scoring_of(model_of(small_proto(last=last), classes=1), activation)
    assert scoring == Scoring(chosen, 2)
    output = torch.tensor([[0.25], [0.75]])
    second = output.sigmoid() if chosen == "sigmoid" else output
    np.testing.assert_allclose(
        scoring.scores(output), torch.cat([1 - second, second], 1), atol=1e-6
    )


@pytest.mark.parametrize(
    ("axis", "opset", "shape"), [(0, 17, [5]), (1, 17, [1, 5]), (0, 12, [5]), (2, 17, [5, 1])]
)
def test_a_softmax_that_is_not_over_the_classes_is_refused(
    axis: int, opset: int, shape: list[int], small_proto: ProtoFactory
) -> None:
    """Over the batch every lone image gets 1.0 for every class."""
    proto = small_proto(last="Softmax", opset=opset)
    proto.graph.node[-1].attribute.append(helper.make_attribute("axis", axis))
    value = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", *shape])
    proto.graph.output[0].CopyFrom(value)
    with pytest.raises(EngineError, match=f"Softmax before its output .* axis {axis}"):
        scoring_of(OnnxModel(Path("m.onnx"), "", proto))


def test_a_softmax_of_an_older_opset_runs_over_all_axes_from_its_own_on(
    small_proto: ProtoFactory,
) -> None:
    proto = small_proto(last="Softmax", opset=12)
    value = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 1, 5])
    proto.graph.output[0].CopyFrom(value)
    assert scoring_of(OnnxModel(Path("m.onnx"), "", proto)) == Scoring("none", 5)


def test_an_unknown_activation_gets_the_closest_name(small_proto: ProtoFactory) -> None:
    with pytest.raises(EngineError, match=r"unknown output activation 'sigmod'; .*'sigmoid'"):
        scoring_of(model_of(small_proto()), "sigmod")
