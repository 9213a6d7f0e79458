"""The outputs of an ONNX graph: which ones engines take, of what shape, and one of them alone."""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path

import onnx
from onnx import TensorProto, shape_inference

from engine.errors import EngineError
from engine.onnx_graph.tensors import bodies, nodes_within, true_inputs

_logger = logging.getLogger(__name__)


def with_usable_outputs(
    proto: onnx.ModelProto, element_types: Collection[int], path: Path
) -> onnx.ModelProto:
    """The model without outputs that no engine takes, and with the shapes of the others.

    Classifiers exported from scikit-learn, for example, also have an output of strings.

    Args:
        proto: the model; it is not changed.
        element_types: those of tensors that engines take.
        path: its file, for messages.

    Returns:
        `proto` itself where there is nothing to leave out and nothing to complete.

    Raises:
        EngineError: no output is left.
    """
    described = {value.name: _unusable(value, element_types) for value in proto.graph.output}
    left_out = {name: why for name, why in described.items() if why}
    if len(left_out) == len(described):
        reasons = "; ".join(f"{name!r} is {why}" for name, why in left_out.items())
        raise EngineError(f"{path} has no output that an engine takes: {reasons}")
    for name, why in left_out.items():
        _logger.info("%s: output %r is left out: it is %s", path.name, name, why)
    if left_out:
        proto = keep_outputs(proto, described.keys() - left_out.keys())
    return proto if all(map(_is_complete, proto.graph.output)) else _with_shapes(proto)


def keep_outputs(proto: onnx.ModelProto, names: Collection[str]) -> onnx.ModelProto:
    """A copy of the model with some of its outputs, and with what these need alone."""
    kept = onnx.ModelProto()
    kept.CopyFrom(proto)
    graph = kept.graph
    needed = _needed(kept, names)
    nodes = [node for node in graph.node if needed.intersection(node.output)]
    outputs = [value for value in graph.output if value.name in names]
    inputs = [value for value in graph.input if value.name in needed]
    weights = [tensor for tensor in graph.initializer if tensor.name in needed]
    for field in ("node", "output", "input", "initializer"):
        graph.ClearField(field)
    graph.node.extend(nodes)
    graph.output.extend(outputs)
    graph.input.extend(inputs)
    graph.initializer.extend(weights)
    return kept


def depends_on_inputs(proto: onnx.ModelProto, output: str) -> bool:
    """Whether an output is computed from any input of the graph."""
    needed = _needed(proto, [output])
    return any(value.name in needed for value in true_inputs(proto))


def _needed(proto: onnx.ModelProto, outputs: Collection[str]) -> set[str]:
    """The names of all tensors that some outputs are computed from, and their own."""
    needed = set(outputs)
    for node in reversed(proto.graph.node):
        if needed.intersection(node.output):
            readers = [node, *(inner for body in bodies(node) for inner in nodes_within(body))]
            needed.update(name for reader in readers for name in reader.input if name)
    return needed


def _unusable(value: onnx.ValueInfoProto, element_types: Collection[int]) -> str:
    """What kind of thing no engine takes; "" for a tensor of numbers."""
    kind = value.type.WhichOneof("value") or "tensor_type"
    if kind != "tensor_type":
        return f"a {kind.removesuffix('_type')} and no tensor"
    element_type = value.type.tensor_type.elem_type
    if element_type in element_types:
        return ""
    return f"a tensor of type {TensorProto.DataType.Name(element_type)}"


def _is_complete(value: onnx.ValueInfoProto) -> bool:
    """Whether the file says how large a row of an output is."""
    return all(dim.HasField("dim_value") for dim in value.type.tensor_type.shape.dim[1:])


def _with_shapes(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which outputs have the sizes that follow from the graph, as far as some do."""
    open_proto, sized = onnx.ModelProto(), onnx.ModelProto()
    open_proto.CopyFrom(proto)
    sized.CopyFrom(proto)
    for value in open_proto.graph.output:
        value.type.tensor_type.ClearField("shape")
    try:
        inferred = shape_inference.infer_shapes(open_proto, data_prop=True)
    except (shape_inference.InferenceError, ValueError):
        return proto  # the shapes stay open, which is an error only where they are needed
    for value, found in zip(sized.graph.output, inferred.graph.output, strict=True):
        shape, known = value.type.tensor_type.shape, found.type.tensor_type.shape
        for dim, size in zip(shape.dim, known.dim, strict=False):
            if not dim.HasField("dim_value") and size.HasField("dim_value"):
                dim.dim_value = size.dim_value
    return sized
