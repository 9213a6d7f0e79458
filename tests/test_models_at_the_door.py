"""Models that are not one row of logits for an image: served rightly, or refused in one line."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from idl import inference
from service.errors import ConfigurationError
from service.handlers.handler_settings import HandlerSettings
from service.handlers.outcomes import Scores
from service.handlers.table import create_handler
from tests.engines import CPU_ENGINES
from tests.serving import connect, refusal, service_here

HANDLERS = ("baseline", "pipeline")
GREY = cv2.imencode(".png", np.full((8, 8, 3), 200, np.uint8))[1].tobytes()
DOCUMENT = """
[decode]
backend = "S[DecodeMat,ResizeMat,cvtColorMat,Mat2Tensor]"
resize_h = 8
resize_w = 8
next = "model"

[model]
backend = "TensorrtTensor"
model = "{}"
"""
RAW = {"mean": (0.0,), "std": (1.0,)}


def save(
    path: Path,
    outputs: dict[str, list[float]],
    dtype: int = TensorProto.FLOAT,
    shape: tuple[int | str, ...] = (3, 8, 8),
) -> Path:
    """A model whose outputs are the mean of all pixels times so many numbers each."""
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Unsqueeze", ["mean", "axis"], ["column"]),
    ]
    weights = [numpy_helper.from_array(np.array([1], np.int64), "axis")]
    numpy_type = helper.tensor_dtype_to_np_dtype(dtype)
    for name, factors in outputs.items():
        nodes.append(helper.make_node("MatMul", ["column", f"{name}_factors"], [name]))
        array = np.array([factors], numpy_type)
        weights.append(numpy_helper.from_array(array, f"{name}_factors"))
    graph = helper.make_graph(
        nodes,
        "means",
        [helper.make_tensor_value_info("image", dtype, ["batch", *shape])],
        [
            helper.make_tensor_value_info(name, dtype, ["batch", len(factors)])
            for name, factors in outputs.items()
        ],
        weights,
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(proto, {"thriftpipe.note": "made for a test"})
    onnx.save(proto, path)
    return path


def served(handler: str, model: Path, **settings: object) -> list[float]:
    """The scores of a grey image of level 200, of which the model gets 200 as it is."""
    quickly = {"calibrate": "off", **RAW, **settings}
    made = create_handler(handler, HandlerSettings(model=str(model), **quickly))  # type: ignore[arg-type]
    (outcome,) = made.classify([GREY], None)
    made.close()
    assert isinstance(outcome, Scores)
    return [float(score) for score in outcome.probabilities]


@pytest.mark.parametrize("handler", HANDLERS)
def test_one_logit_is_refused_or_served_as_two_classes(handler: str, tmp_path: Path) -> None:
    model = save(tmp_path / "one.onnx", {"logit": [0.01]})
    arguments = ("--handler", handler, "--model", str(model), "--mean=0", "--std=1")
    line = refusal(*arguments)
    assert "one output value for an image, 'logit' float32 N x 1" in line
    assert "--output-activation sigmoid" in line
    with service_here(*arguments, "--output-activation", "sigmoid") as port:
        client = connect(port)
        request = inference.InferenceParams(uuid="1", data=GREY)
        (result,) = client.infer_images([request], inference.InferOptions(top_k=2))
        client.close()
    assert [entry.label for entry in result.top_k] == ["class_1", "class_0"]
    expected = 1 / (1 + np.exp(-2))
    assert [entry.score for entry in result.top_k] == pytest.approx([expected, 1 - expected])


@pytest.mark.parametrize("handler", HANDLERS)
def test_of_two_outputs_the_one_that_scores_classes_is_served(handler: str, tmp_path: Path) -> None:
    model = save(tmp_path / "two.onnx", {"sure": [1.0], "classes": [0.0, 0.01, 0.02]})
    arguments = ("--handler", handler, "--model", str(model), "--mean=0", "--std=1")
    with service_here(*arguments, "--output-activation", "none") as port:
        client = connect(port)
        result = client.infer_batch(inference.InferenceParams(uuid="1", data=GREY))
        assert client.server_info().settings["note"] == "made for a test"
        client.close()
    assert (result.label, result.score) == ("class_2", pytest.approx(4.0))
    line = refusal(*arguments, "--output", "clases")
    assert "no output 'clases'; did you mean 'classes'?" in line
    assert "'sure' float32 N x 1, 'classes' float32 N x 3" in line


@pytest.mark.parametrize("engine", CPU_ENGINES)
@pytest.mark.parametrize("handler", HANDLERS)
def test_every_engine_gives_the_output_that_is_named(
    handler: str, engine: str, tmp_path: Path
) -> None:
    model = save(tmp_path / "two.onnx", {"one": [0.0, 0.01], "other": [0.0, 0.01, 0.02]})
    scores = served(handler, model, engine=engine, output="other", output_activation="sigmoid")
    assert scores == pytest.approx([1 / (1 + np.exp(-x)) for x in (0.0, 2.0, 4.0)], abs=1e-4)
    with pytest.raises(ConfigurationError, match="2 outputs that may score classes"):
        served(handler, model, engine=engine)


@pytest.mark.parametrize("handler", HANDLERS)
def test_half_precision_tensors_are_served(handler: str, tmp_path: Path) -> None:
    model = save(tmp_path / "half.onnx", {"classes": [0.0, 0.01]}, TensorProto.FLOAT16)
    assert served(handler, model, output_activation="none") == pytest.approx([0, 2], abs=0.01)


def test_a_model_whose_name_is_not_utf8_is_told(tmp_path: Path) -> None:
    model = os.fsdecode(bytes(tmp_path) + b"/m\xff.onnx")
    save(tmp_path / "m.onnx", {"classes": [0.0, 0.01]}).rename(model)
    with service_here("--handler", "baseline", "--model", model) as port:
        client = connect(port)
        assert client.server_info().model == r"m\udcff.onnx"
        client.close()


def test_a_file_names_output_and_activation_too(tmp_path: Path) -> None:
    model = save(tmp_path / "two.onnx", {"one": [0.0, 0.01], "other": [0.0, 0.01, 0.02]})
    config = tmp_path / "two.toml"
    config.write_text(DOCUMENT.format(model) + "mean = [0]\nstd = [1]\n")
    settings = HandlerSettings(config=str(config))
    with pytest.raises(ConfigurationError, match="2 outputs that may score classes"):
        create_handler("pipeline", settings)
    config.write_text(config.read_text() + 'output = "other"\noutput_activation = "sigmoid"\n')
    handler = create_handler("pipeline", settings)
    (outcome,) = handler.classify([GREY], None)
    handler.close()
    assert isinstance(outcome, Scores)
    assert outcome.probabilities == pytest.approx([0.5, 1 / (1 + np.exp(-2)), 1 / (1 + np.exp(-4))])


@pytest.mark.parametrize("handler", HANDLERS)
def test_mean_and_std_for_pixels_of_0_to_1_are_refused(handler: str, tmp_path: Path) -> None:
    model = save(tmp_path / "m.onnx", {"classes": [0.0, 0.01]})
    line = refusal(
        *("--handler", handler, "--model", str(model)),
        *("--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225"),
    )
    assert "mean 123.675,116.28,103.53 and std 58.395,57.12,57.375" in line


def test_a_file_without_mean_and_std_is_a_warning_at_the_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config, labels = tmp_path / "raw.toml", tmp_path / "labels.txt"
    config.write_text(DOCUMENT.format(save(tmp_path / "m.onnx", {"classes": [0.0, 0.01]})))
    labels.write_text("only one")
    line = refusal("--handler", "pipeline", "--config", str(config), "--labels", str(labels))
    (warning,) = (record for record in caplog.records if "mean" in record.getMessage())
    assert warning.levelname == "WARNING"
    assert "[model] has neither mean nor std" in warning.getMessage()
    assert "has 1 labels, the model has 2 classes" in line


@pytest.mark.parametrize("handler", HANDLERS)
@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((4, 8, 8), "it takes 'image' float32 N x 4 x 8 x 8"),
        ((3, 8), "it takes 'image' float32 N x 3 x 8"),
    ],
)
def test_inputs_that_are_no_images_are_refused(
    handler: str, shape: tuple[int | str, ...], message: str, tmp_path: Path
) -> None:
    model = save(tmp_path / "m.onnx", {"classes": [0.0, 0.01]}, shape=shape)
    with pytest.raises(ConfigurationError, match=message):
        served(handler, model)


def test_a_file_names_the_size_that_a_model_leaves_open(tmp_path: Path) -> None:
    model = save(tmp_path / "m.onnx", {"classes": [0.0, 0.01]}, shape=(3, "h", "w"))
    config = tmp_path / "open.toml"
    config.write_text(DOCUMENT.format(model) + 'mean = "0"\nstd = "1"\n')
    with pytest.raises(ConfigurationError, match=r"'image_uint8' uint8 N x 3 .* no fixed size"):
        create_handler("pipeline", HandlerSettings(config=str(config)))
    config.write_text(config.read_text() + 'max = "2x3x8x8"\noutput_activation = "none"\n')
    handler = create_handler("pipeline", HandlerSettings(config=str(config)))
    (outcome,) = handler.classify([GREY], None)
    handler.close()
    assert isinstance(outcome, Scores)
    assert outcome.probabilities == pytest.approx([0.0, 2.0])
