"""The graph that TensorRT builds an engine from."""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from engine.onnx_graph.fp16 import cast_layers
from engine.onnx_graph.fused_input import prepares_pixels
from engine.onnx_graph.model import OnnxModel
from engine.options import EngineOptions


def tensorrt_graph(model: OnnxModel, options: EngineOptions) -> bytes:
    """The model in the precision that runs, serialized.

    Args:
        model: the model.
        options: "fp32", "fp16" or "int8", and the layers that are exceptions. In int8 the layers
            that are not quantised run in fp32, those of `fp16_layers` in fp16.

    Raises:
        EngineError: a layer that is not there, or no calibration images for int8.
    """
    proto = model.proto
    if options.precision == "int8":
        # Here, since onnxruntime's quantiser would make each other start longer.
        from engine.int8.quantization import quantized_graph

        proto = quantized_graph(model, options, symmetric=True)
    proto = cast_layers(proto, options.precision, options.fp32_layers, options.fp16_layers)
    _cast_pixels_first(proto.graph)
    _compute_pixels_as_floats(proto.graph)
    content: bytes = proto.SerializeToString(deterministic=True)
    return content


def _cast_pixels_first(graph: onnx.GraphProto) -> None:
    """Let a Transpose of uint8 pixels and the Cast behind it change places.

    TensorRT takes uint8 from outside, but has no layer for it except the Cast.
    """
    pixels = {
        value.name for value in graph.input if value.type.tensor_type.elem_type == TensorProto.UINT8
    }
    readers = {name: node for node in graph.node for name in node.input}
    for transpose in graph.node:
        if transpose.op_type != "Transpose" or transpose.input[0] not in pixels:
            continue
        cast = readers[transpose.output[0]]
        if cast.op_type != "Cast":
            continue
        # They exchange everything but their tensors, so that the graph stays in order.
        first, second = onnx.NodeProto(), onnx.NodeProto()
        first.CopyFrom(cast)
        second.CopyFrom(transpose)
        first.input[:], first.output[:] = transpose.input, transpose.output
        second.input[:], second.output[:] = cast.input, cast.output
        transpose.CopyFrom(first)
        cast.CopyFrom(second)


def _compute_pixels_as_floats(graph: onnx.GraphProto) -> None:
    """Let what comes before a model's own Cast of uint8 pixels take and give floats.

    That is what `fused_input` has put there for a model that takes bytes; its own first layer is a
    Cast then, to which whole numbers in floats are the same.
    """
    for node in graph.node:
        if prepares_pixels(node) and _casts_to_bytes(node):
            node.CopyFrom(helper.make_node("Floor", node.input, node.output, node.name))
    for value in graph.input:
        readers = [node for node in graph.node if value.name in node.input]
        is_pixels = value.type.tensor_type.elem_type == TensorProto.UINT8
        if not is_pixels or all(node.op_type == "Cast" for node in readers):
            continue
        floats = f"{value.name}_float"
        for node in readers:
            node.input[:] = [floats if name == value.name else name for name in node.input]
        cast = helper.make_node("Cast", [value.name], [floats], floats, to=TensorProto.FLOAT)
        kept = list(graph.node)
        del graph.node[:]
        graph.node.extend([cast, *kept])
        del graph.value_info[:]


def _casts_to_bytes(node: onnx.NodeProto) -> bool:
    return node.op_type == "Cast" and node.attribute[0].i == TensorProto.UINT8
