"""Models of known answers that take their image in every way that files have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE = 8


def save_means(
    path: Path,
    layout: str = "nchw",
    channels: int = 3,
    dtype: int = TensorProto.FLOAT,
    size: int | str = SIDE,
    **metadata: str,
) -> Path:
    """A model whose scores are the mean of each channel, in its own order; of one, also its half.

    Args:
        path: where it is written.
        layout: "nchw" or "nhwc".
        channels: 1 or 3.
        dtype: of its input.
        size: height and width, or the name of one that it leaves open.
        metadata: of the file, with "__" for dots in its keys.
    """
    row = [channels, size, size] if layout == "nchw" else [size, size, channels]
    axes = [2, 3] if layout == "nchw" else [1, 2]
    factors = np.eye(3, dtype=np.float32) if channels == 3 else np.array([[1, 0.5]], np.float32)
    nodes = [
        helper.make_node("Cast", ["image"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats"], ["means"], axes=axes, keepdims=0),
        helper.make_node("MatMul", ["means", "factors"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "means",
        [helper.make_tensor_value_info("image", dtype, ["batch", *row])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", len(factors[0])])],
        [numpy_helper.from_array(factors, "factors")],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(proto, {key.replace("__", "."): text for key, text in metadata.items()})
    onnx.save(proto, path)
    return path
