"""Models of known answers that take their image in every way that files have."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any
from zlib import compress, crc32

import cv2
import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE = 8
R, G, B = 200, 120, 40
GREY = 0.299 * R + 0.587 * G + 0.114 * B
IMAGE = cv2.imencode(".png", np.full((12, 20, 3), (B, G, R), np.uint8))[1].tobytes()
RAW = {"mean": (0.0,), "std": (1.0,)}
"""Pixels as they are."""
FORMATS: dict[str, tuple[dict[str, Any], dict[str, Any], list[float]]] = {
    "channels last": ({"layout": "nhwc"}, RAW, [R, G, B]),
    "channels last, BGR": ({"layout": "nhwc"}, {**RAW, "color": "bgr"}, [B, G, R]),
    "BGR": ({}, {"mean": (10.0, 20.0, 30.0), "std": (20.0, 10.0, 5.0), "color": "bgr"}, []),
    "grey": ({"channels": 1}, RAW, [GREY, GREY / 2]),
    "grey, channels last": ({"channels": 1, "layout": "nhwc"}, RAW, [GREY, GREY / 2]),
    "bytes": ({"dtype": TensorProto.UINT8}, {}, [R, G, B]),
    "bytes, channels last": ({"dtype": TensorProto.UINT8, "layout": "nhwc"}, {}, [R, G, B]),
    "bytes, BGR": ({"dtype": TensorProto.UINT8}, {"color": "bgr"}, [B, G, R]),
    "grey bytes": ({"dtype": TensorProto.UINT8, "channels": 1}, {}, [round(GREY), round(GREY) / 2]),
    "halves, channels last": ({"dtype": TensorProto.FLOAT16, "layout": "nhwc"}, RAW, [R, G, B]),
}
# Normalized in the order R, G, B, whatever order the model has.
FORMATS["BGR"][2].extend([(B - 30) / 5, (G - 20) / 10, (R - 10) / 20])


def save_linear_classifier(path: Path, weights: npt.NDArray[np.float32], side: int) -> None:
    """A model that takes no time: softmax of the means of R, G and B, times `weights`.

    Args:
        path: where it is written.
        weights: of shape (3, classes).
        side: height and width of its input, pixels.
    """
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["means"]),
        helper.make_node("Flatten", ["means"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, side, side])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", weights.shape[1]])],
        [numpy_helper.from_array(weights, "weights")],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)


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


def png_of_size(width: int, height: int) -> bytes:
    """A PNG that says it has so many pixels, without any of them."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = chunk(b"IDAT", compress(b""))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")
