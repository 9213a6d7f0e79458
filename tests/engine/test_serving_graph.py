"""`python -m engine.serving_graph`: a file that other servers serve as this one does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from engine.serving_graph import main
from interfaces.peers import ServingGraph
from tests.image_models import FORMATS, SIDE, B, G, R, save_means


@pytest.fixture
def brightness(tmp_path: Path) -> Path:
    """Logits: the mean of each channel of pixels of 0 to 1."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["means"]),
        helper.make_node("Flatten", ["means"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "brightness",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"thriftpipe.mean": "0", "thriftpipe.std": "255"})
    path = tmp_path / "brightness.onnx"
    onnx.save(model, path)
    return path


def test_the_graph_takes_the_pixels_that_decoders_give(
    brightness: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "graph.onnx"
    assert main([str(brightness), "--output", str(output)]) == 0
    graph = ServingGraph.from_line(capsys.readouterr().out)
    assert graph is not None
    assert (graph.model, graph.height, graph.width, graph.softmax) == (
        *("brightness.onnx", SIDE, SIDE),
        True,
    )
    session = onnxruntime.InferenceSession(str(output), providers=["CPUExecutionProvider"])
    pixels = np.zeros((2, SIDE, SIDE, 3), np.uint8)
    pixels[1, :, :, 2] = 255
    logits = session.run(None, {session.get_inputs()[0].name: pixels})[0]
    assert np.allclose(logits, [[0, 0, 0], [0, 0, 1]])


@pytest.mark.parametrize(
    "name", ["channels last", "grey, channels last", "bytes", "bytes, channels last", "grey bytes"]
)
def test_it_takes_them_whatever_the_file_wants(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved, _, expected = FORMATS[name]
    plain = {"thriftpipe__mean": "0", "thriftpipe__std": "1"}
    model = save_means(tmp_path / "m.onnx", **saved, **plain)
    output = tmp_path / "graph.onnx"
    assert main([str(model), "--output", str(output)]) == 0, capsys.readouterr().err
    session = onnxruntime.InferenceSession(str(output), providers=["CPUExecutionProvider"])
    pixels = np.broadcast_to(np.array([R, G, B], np.uint8), (2, SIDE, SIDE, 3))
    scores = session.run(None, {session.get_inputs()[0].name: pixels})[0]
    assert np.allclose(scores, [expected, expected], atol=0.01)


def test_what_cannot_be_written_is_told_in_a_line(
    brightness: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["resnet5", "--output", str(tmp_path / "graph.onnx")]) == 1
    assert "did you mean 'resnet50'" in capsys.readouterr().err
    output = str(tmp_path / "graph.onnx")
    assert main([str(brightness), "--precision", "int8", "--output", output]) == 1
    assert "calibration" in capsys.readouterr().err
    assert not Path(output).exists()
