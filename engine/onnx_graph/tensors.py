"""The tensors and nodes of a graph, as engines know them."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
import torch
from onnx import TensorProto

from engine.errors import EngineError
from engine.tensor_spec import TensorSpec

TORCH_DTYPES: dict[int, torch.dtype] = {
    TensorProto.FLOAT: torch.float32,
    TensorProto.FLOAT16: torch.float16,
    TensorProto.BFLOAT16: torch.bfloat16,
    TensorProto.DOUBLE: torch.float64,
    TensorProto.UINT8: torch.uint8,
    TensorProto.INT8: torch.int8,
    TensorProto.INT32: torch.int32,
    TensorProto.INT64: torch.int64,
    TensorProto.BOOL: torch.bool,
}


def true_inputs(proto: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """The inputs of a graph, without weights, which files of IR version 3 list among them."""
    stored = {tensor.name for tensor in proto.graph.initializer}
    return [value for value in proto.graph.input if value.name not in stored]


def bodies(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """The graphs inside a node, such as the branches of an If or the body of a Loop."""
    return [
        graph
        for attribute in node.attribute
        for graph in ([attribute.g] if attribute.HasField("g") else attribute.graphs)
    ]


def nodes_within(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """All nodes of a graph, also those inside of others."""
    for node in graph.node:
        yield node
        for body in bodies(node):
            yield from nodes_within(body)


def free_name(proto: onnx.ModelProto, wanted: str) -> str:
    """The name, or one like it, that no tensor of a graph has yet."""
    taken = {value.name for value in [*proto.graph.input, *proto.graph.initializer]}
    taken.update(name for node in nodes_within(proto.graph) for name in node.output)
    while wanted in taken:
        wanted += "_"
    return wanted


def open_meaningless_sizes(proto: onnx.ModelProto) -> None:
    """Leave the sizes open that are below 1: some exporters write -1 or 0 for any size."""
    graph = proto.graph
    for value in [*graph.input, *graph.output, *graph.value_info]:
        for dim in value.type.tensor_type.shape.dim:
            if dim.HasField("dim_value") and dim.dim_value < 1:
                dim.ClearField("dim_value")


def tensor_spec(value: onnx.ValueInfoProto) -> TensorSpec:
    """What engines know of an input or output; EngineError where the file does not say it."""
    tensor = value.type.tensor_type
    if (dtype := TORCH_DTYPES.get(tensor.elem_type)) is None:
        raise EngineError(f"tensor {value.name!r} has an element type that no engine takes")
    if not tensor.HasField("shape") or not tensor.shape.dim:
        raise EngineError(f"tensor {value.name!r} has no shape with a batch dimension in the file")
    sizes = (dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim)
    # Names that exporters make up, such as "unk__615", say nothing.
    names = (dim.dim_param if dim.dim_param.isalpha() else "" for dim in tensor.shape.dim)
    return TensorSpec(value.name, dtype, tuple(sizes), open_names=tuple(names))
