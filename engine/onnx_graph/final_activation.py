"""What a graph ends in: an activation, behind which none is put, or a choice of the best."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

# What may stand between a Softmax and the output without changing what the numbers mean.
_ELEMENTWISE_OPS = {"Cast", "Clip", "Dropout", "Identity"}
_RESHAPING_OPS = {"Flatten", "Reshape", "Squeeze", "Unsqueeze"}
# After these the axes are others; and those that choose some classes leave them probabilities.
_REORDERING_OPS = {"Gather", "Slice", "Split", "Transpose"}
_ROUNDING_OPS = {"DequantizeLinear", "QuantizeLinear"}
_SCALING_OPS = {"Div", "Mul"}
# Those with QLinear give integers, as QuantizeLinear does, and carry the output's scale.
_ACTIVATIONS = {
    **{name: name for name in ("HardSigmoid", "Sigmoid", "Softmax")},
    **{f"QLinear{name}": name for name in ("Sigmoid", "Softmax")},
}
# Where a node that rounds to integers has their scale among its inputs.
_SCALE_OF_INTEGERS = {"QuantizeLinear": 1, "QLinearSigmoid": 3, "QLinearSoftmax": 3}
# Before this opset a Softmax runs over all axes from its own on.
_SOFTMAX_OF_ONE_AXIS = 13


def activation_in_graph(proto: onnx.ModelProto, output: str, rank: int) -> tuple[str, list[int]]:
    """The activation whose values an output of a graph has, rearranged or rounded at most.

    Args:
        proto: the model.
        output: the output's name.
        rank: how many dimensions it has.

    Returns:
        "Softmax", "Sigmoid", "HardSigmoid", or "" for none; and over which axes of the output a
        Softmax runs, none where that cannot be told.
    """
    producers = {name: node for node in proto.graph.node for name in node.output}
    known_rank: int | None = rank
    is_reordered = False
    scale = ""
    node = producers.get(output)
    while node is not None:
        if node.op_type == "DequantizeLinear":
            scale = node.input[1]
        place = _SCALE_OF_INTEGERS.get(node.op_type)
        if place is not None and not _is_same(scale, node.input[place], proto, producers):
            return "", []
        if not (source := _passed_on(node, proto, producers)):
            break
        is_reordered |= node.op_type in _REORDERING_OPS
        if node.op_type in _RESHAPING_OPS | _REORDERING_OPS:
            known_rank = None
        node = producers.get(source)
    if node is None or node.op_type not in _ACTIVATIONS:
        return "", []
    activation = _ACTIVATIONS[node.op_type]
    is_known = activation == "Softmax" and not is_reordered
    return activation, _softmax_axes(proto, node, known_rank) if is_known else []


def gives_best_only(proto: onnx.ModelProto, output: str) -> bool:
    """Whether an output has the best values of each row, best first, and not which they are."""
    producers = {name: node for node in proto.graph.node for name in node.output}
    node = producers.get(output)
    while node is not None and node.op_type != "TopK":
        source = node.input[0] if node.op_type in _ACTIVATIONS else ""
        node = producers.get(source or _passed_on(node, proto, producers))
    # With one it is a maximum, over whichever axis: a pooling. Before opset 10 k is an attribute.
    return node is not None and not any(_is_one(k, proto, producers) for k in node.input[1:])


def _passed_on(
    node: onnx.NodeProto, proto: onnx.ModelProto, producers: Mapping[str, onnx.NodeProto]
) -> str:
    """The tensor whose values a node passes on with what they mean, or ""."""
    passing = _ELEMENTWISE_OPS | _RESHAPING_OPS | _REORDERING_OPS | _ROUNDING_OPS
    if node.op_type in passing:
        return str(node.input[0])
    if node.op_type in _SCALING_OPS:
        left, right = node.input
        if _is_one(right, proto, producers):
            return str(left)
        if node.op_type == "Mul" and _is_one(left, proto, producers):
            return str(right)
    return ""


def _is_one(name: str, proto: onnx.ModelProto, producers: Mapping[str, onnx.NodeProto]) -> bool:
    value = _constant(name, proto, producers)
    return value is not None and bool(np.all(value == 1))


def _is_same(
    name: str, other: str, proto: onnx.ModelProto, producers: Mapping[str, onnx.NodeProto]
) -> bool:
    """Whether two tensors are one, or constants of the same value."""
    if name == other:
        return True
    value, other_value = (_constant(it, proto, producers) for it in (name, other))
    return value is not None and other_value is not None and bool(np.all(value == other_value))


def _constant(
    name: str, proto: onnx.ModelProto, producers: Mapping[str, onnx.NodeProto]
) -> npt.NDArray[Any] | None:
    """The numbers of a tensor that does not depend on the inputs; None for any other."""
    for tensor in proto.graph.initializer:
        if tensor.name == name:
            return numpy_helper.to_array(tensor)
    node = producers.get(name)
    if node is None or node.op_type != "Constant":
        return None
    attribute = node.attribute[0]
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    return None if attribute.type == onnx.AttributeProto.STRING else np.asarray(value)


def _softmax_axes(proto: onnx.ModelProto, node: onnx.NodeProto, rank: int | None) -> list[int]:
    opsets = (it.version for it in proto.opset_import if it.domain in ("", "ai.onnx"))
    # A QLinearSoftmax says after which opset it runs.
    own = [attribute.i for attribute in node.attribute if attribute.name == "opset"]
    is_flattening = min(own or opsets) < _SOFTMAX_OF_ONE_AXIS
    given = [attribute.i for attribute in node.attribute if attribute.name == "axis"]
    axis = given[0] if given else (1 if is_flattening else -1)
    if rank is None:
        return [0] if axis == 0 else []
    axis %= rank
    return list(range(axis, rank)) if is_flattening else [axis]
