"""Mean and std as the first layers of a graph."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from engine.normalization import Normalization
from engine.onnx_graph.layer_names import layer_name
from engine.onnx_graph.tensors import true_inputs

# What may stand before a graph's first arithmetic, and which arithmetic normalizes.
_PASSING_OPS = {
    *("Cast", "Concat", "Gather", "Identity", "Pad", "Resize", "Slice", "Split", "Transpose"),
    *("QuantizeLinear", "DequantizeLinear", "Reshape", "Squeeze", "Unsqueeze"),
}
_ARITHMETIC_OPS = {"Add", "Div", "Mul", "Sub"}
_SCALING_OPS = {*_ARITHMETIC_OPS, "BatchNormalization", "InstanceNormalization"}
_LAYER_PREFIX = "thriftpipe/"


def normalizes_pixels(node: onnx.NodeProto) -> bool:
    """Whether a layer is one of those that `fuse_normalization` adds."""
    return layer_name(node).startswith(_LAYER_PREFIX)


def scales_its_image(proto: onnx.ModelProto) -> bool:
    """Whether a model takes pixels of 0..255: bytes, or floats that its graph scales first."""
    inputs = true_inputs(proto)
    if any(value.type.tensor_type.elem_type == TensorProto.UINT8 for value in inputs):
        return True
    return any(op_type in _SCALING_OPS for op_type in _first_computations(proto))


def first_arithmetic(proto: onnx.ModelProto) -> str:
    """The operator by which a graph seems to normalize its image itself, or ""."""
    found = (op_type for op_type in _first_computations(proto) if op_type in _ARITHMETIC_OPS)
    return next(found, "")


def _first_computations(proto: onnx.ModelProto) -> Iterator[str]:
    """The types of the nodes that are the first to change an input's values."""
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in proto.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    ahead = [value.name for value in true_inputs(proto)]
    seen = set(ahead)
    while ahead:
        for node in readers.get(ahead.pop(), ()):
            if node.op_type not in _PASSING_OPS:
                yield node.op_type
                continue
            ahead += [name for name in node.output if name not in seen]
            seen.update(node.output)


def fuse_normalization(
    proto: onnx.ModelProto, input_name: str, pixels_name: str, normalization: Normalization
) -> onnx.ModelProto:
    """A copy of a model with the normalization in front of its graph.

    Args:
        proto: a model with one floating-point input of shape (N, 3, H, W).
        input_name: that input; in the copy it is an intermediate tensor.
        pixels_name: what the copy's input is to be called: uint8 of shape (N, H, W, 3).
        normalization: what becomes one multiplication and one addition.
    """
    fused = onnx.ModelProto()
    fused.CopyFrom(proto)
    graph = fused.graph
    (value,) = (v for v in graph.input if v.name == input_name)
    element_type = value.type.tensor_type.elem_type
    batch, _, height, width = (
        dim.dim_value if dim.HasField("dim_value") else dim.dim_param
        for dim in value.type.tensor_type.shape.dim
    )
    step = f"{_LAYER_PREFIX}{input_name}"
    # The transpose comes first because it moves a quarter of the bytes there.
    nodes = [
        helper.make_node("Transpose", [pixels_name], [f"{step}/nchw"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", [f"{step}/nchw"], [f"{step}/float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", [f"{step}/float", f"{step}/factor"], [f"{step}/scaled"]),
        helper.make_node("Add", [f"{step}/scaled", f"{step}/offset"], [f"{step}/normalized"]),
        # To the old input's own type; engines drop it where nothing changes.
        helper.make_node("Cast", [f"{step}/normalized"], [input_name], to=element_type),
    ]
    for node in nodes:
        node.name = node.output[0]
    kept = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *kept])

    mean, std = (np.array(v, dtype=np.float64) for v in normalization.per_channel())
    graph.initializer.extend(
        numpy_helper.from_array(numbers.astype(np.float32).reshape(1, 3, 1, 1), f"{step}/{name}")
        for name, numbers in (("factor", 1 / std), ("offset", -mean / std))
    )
    graph.input.remove(value)
    shape = [batch, height, width, 3]
    graph.input.insert(0, helper.make_tensor_value_info(pixels_name, TensorProto.UINT8, shape))
    return fused
