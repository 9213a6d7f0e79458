"""A tiny model with its TOML file, for the tests of all commands."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

CHANNELS = """
batching_timeout = 5

[decoder]
backend = "S[DecodeMat,ResizeMat(resize_h=8),cvtColorMat,Mat2Tensor]"
resize_w = 8
next = "model"

[model]
backend = "TensorrtTensor"
model = "{model}"
mean = [0, 0, 0]
std = [1, 1, 1]
max = 2
"""


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that scores the mean of each channel, its TOML file, labels, and two images."""
    folder = tmp_path_factory.mktemp("commands")
    image = ["batch", 3, 8, 8]
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["input"], ["pooled"]),
            helper.make_node("Reshape", ["pooled", "shape"], ["output"]),
        ],
        "channel_means",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, image)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(np.array([-1, 3], np.int64), "shape")],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(proto, folder / "channels.onnx")
    (folder / "channels.toml").write_text(CHANNELS.format(model=folder / "channels.onnx"))
    (folder / "labels.txt").write_text("red\ngreen\nblue\n")
    for name, pixel in (("red.png", (10, 11, 14)), ("blue.png", (13, 11, 10))):
        cv2.imwrite(str(folder / name), np.full((20, 30, 3), pixel, np.uint8))
    (folder / "text.png").write_text("no image")
    return folder
