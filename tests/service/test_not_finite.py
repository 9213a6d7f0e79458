"""A model that gives NaN or infinity is not served as if it were sure."""

from __future__ import annotations

import logging
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from baseline_trt.handler import create_handler
from engine.errors import EngineError
from engine.onnx_graph.model import OnnxModel
from idl import inference
from service.handlers.handler_settings import HandlerSettings
from service.handlers.warm_up import WarmUp
from tests.serving import connect, refusal, service_here

# As the pixels come, from 0 to 255.
RAW = ("--mean", "0", "--std", "1")


def write_model(
    path: Path, *nodes: tuple[str, list[str], str], limit: float = 60.0, weight: float = 1.0
) -> str:
    """A classifier of 3 classes whose `nodes` lead from "means", of the channels, to "scores"."""
    weights = {
        "matrix": np.full((3, 3), weight / 3, np.float32),
        "limit": np.array(limit, np.float32),
        "zero": np.array(0, np.float32),
        "shape": np.array([0, 3], np.int64),
        "steps": np.array([0, 0.1, 0.2], np.float32),
    }
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["image"], ["pooled"]),
            helper.make_node("Reshape", ["pooled", "shape"], ["rows"]),
            helper.make_node("MatMul", ["rows", "matrix"], ["means"]),
            *(helper.make_node(kind, inputs, [output]) for kind, inputs, output in nodes),
        ],
        "odd",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return str(path)


def flat(level: int) -> bytes:
    return cv2.imencode(".png", np.full((16, 16, 3), level, np.uint8))[1].tobytes()


DARK, BRIGHT = flat(10), flat(200)
ABOVE_LIMIT = ("Sub", ["means", "limit"], "above")
LOGARITHM = (ABOVE_LIMIT, ("Log", ["above"], "logs"), ("Add", ["logs", "steps"], "scores"))
INVERSE = (
    ABOVE_LIMIT,
    ("Max", ["above", "zero"], "positive"),
    ("Reciprocal", ["positive"], "inverse"),
    ("Add", ["inverse", "steps"], "scores"),
)


@pytest.mark.parametrize("handler", ["baseline", "pipeline"])
def test_a_logit_that_overflows_is_no_certainty(handler: str, tmp_path: Path) -> None:
    model = write_model(tmp_path / "inverse.onnx", *INVERSE)
    arguments = ("--handler", handler, "--engine", "onnxruntime", "--model", model, *RAW)
    with service_here(*arguments, "--output-activation", "sigmoid") as port:
        client = connect(port)
        requests = [
            inference.InferenceParams(str(n), data) for n, data in enumerate([DARK, BRIGHT])
        ]
        dark, bright = client.infer_images(requests, None)
        assert dark.error.code == inference.ErrorCode.INTERNAL
        assert bright.error is None
        assert 0 < bright.score < 1
        with pytest.raises(inference.InternalError):
            client.infer_batch(requests[0])
        client.close()


@pytest.mark.parametrize("handler", ["baseline", "pipeline"])
def test_a_model_that_gives_no_numbers_does_not_start(handler: str, tmp_path: Path) -> None:
    model = write_model(tmp_path / "logs.onnx", *LOGARITHM, limit=1000)
    line = refusal("--handler", handler, "--engine", "onnxruntime", "--model", model, *RAW)
    assert line.startswith("error: the model's scores for the warm-up image are not finite numbers")


def test_one_that_fails_for_grey_images_starts_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spread = (
        ("ReduceMax", ["image"], "most"),
        ("ReduceMin", ["image"], "least"),
        ("Sub", ["most", "least"], "range"),
        ("Reshape", ["range", "one"], "contrast"),
        ("Div", ["means", "contrast"], "ratio"),
        ("Add", ["ratio", "steps"], "scores"),
    )
    path = tmp_path / "contrast.onnx"
    model = onnx.load(write_model(path, *spread))
    model.graph.initializer.append(numpy_helper.from_array(np.array([-1, 1]), "one"))
    for node in model.graph.node:
        if node.op_type.startswith("Reduce"):
            node.attribute.append(helper.make_attribute("axes", [1, 2, 3]))
    onnx.save(model, path)
    settings = HandlerSettings(model=str(path), engine="onnxruntime", mean=(0.0,), std=(1.0,))
    handler = create_handler(settings)
    with caplog.at_level(logging.WARNING):
        WarmUp(handler).run()
    handler.close()
    assert "no finite scores for an image of one grey level" in caplog.text


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    """OpenVINO's ReLU makes 0 of NaN, and such a model answers like any other."""
    model = write_model(tmp_path / "nan.onnx", *LOGARITHM, weight=float("nan"))
    with pytest.raises(EngineError, match=r"nan.onnx is damaged: 9 of 9 weights 'matrix' are not"):
        OnnxModel.load(model)
    half = onnx.load(write_model(tmp_path / "half.onnx", *LOGARITHM))
    for data_type in (TensorProto.BFLOAT16, TensorProto.FLOAT16, TensorProto.DOUBLE):
        tensor = helper.make_tensor("extra", data_type, [2], [1.0, float("nan")])
        del half.graph.initializer[5:]
        half.graph.initializer.append(tensor)
        onnx.save(half, tmp_path / "half.onnx")
        with pytest.raises(EngineError, match="1 of 2 weights 'extra' are not numbers"):
            OnnxModel.load(tmp_path / "half.onnx")


def test_infinite_constants_are_not(tmp_path: Path) -> None:
    """A mask, or a Clip without an end."""
    assert OnnxModel.load(write_model(tmp_path / "m.onnx", *LOGARITHM, limit=float("-inf")))
