"""Casting a graph to fp16, layer by layer.

A strongly typed TensorRT network runs every layer in the types that the graph says, and TensorRT 11
knows no other kind: what runs in fp16 is decided here, before the engine is built.

A tensor keeps its name as long as it is fp32. Its fp16 version, if some layer wants or makes one,
is another tensor whose name ends in "/fp16", and a Cast leads from the one that exists to the
other. So whatever is not a layer of the graph proper (its outputs, the bodies of loops) finds its
tensors as they were.

onnxruntime's float16 converter does not do: it rounds weights that layers of both kinds read, and
leaves the bodies of an If with tensors that are gone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, shape_inference

from engine.onnx_graph.fused_input import prepares_pixels
from engine.onnx_graph.layer_names import layer_name, named_layers
from engine.onnx_graph.tensors import bodies

_MAX_FP16 = float(np.finfo(np.float16).max)

# Operators that lose nothing that matters in fp16. All their floating-point inputs and outputs are
# of one type.
# fmt: off
_SAFE_OPS = frozenset(
    {
        "Conv", "ConvTranspose", "Gemm", "MatMul", "Relu", "Clip", "LeakyRelu", "PRelu", "Elu",
        "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Gelu", "Erf", "Mish", "Add", "Sub", "Mul",
        "Div", "Neg", "Abs", "Max", "Min", "Sum", "MaxPool", "AveragePool", "GlobalAveragePool",
        "GlobalMaxPool", "ReduceMean", "ReduceMax", "BatchNormalization", "Concat", "Reshape",
        "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Identity", "Slice", "Split", "Gather",
        "Pad", "Expand", "Tile", "Where", "DepthToSpace", "SpaceToDepth",
    }
)
# Operators that sum up or exponentiate, and so leave fp16's range: only where they are named.
_POSSIBLE_OPS = _SAFE_OPS | frozenset(
    {
        "Softmax", "LogSoftmax", "Exp", "Log", "Pow", "Sqrt", "Reciprocal", "ReduceSum",
        "ReduceL2", "InstanceNormalization", "LpNormalization", "LRN", "Softplus", "Softsign",
    }
)
# fmt: on


def cast_layers(
    proto: onnx.ModelProto,
    precision: str,
    fp32_layers: Sequence[str] = (),
    fp16_layers: Sequence[str] = (),
) -> onnx.ModelProto:
    """A copy of a model that computes in the given precisions.

    Args:
        proto: a model whose layers compute in fp32; its inputs and outputs keep their types.
        precision: "fp16" for every layer that can without harm; "fp32", or "int8" for a graph that
            is quantised already, for none.
        fp32_layers: parts of names of layers that stay in fp32; they win over the other list.
        fp16_layers: parts of names of layers that run in fp16 where their operator can.

    Returns:
        The copy. A layer stays in fp32 if its weights are beyond fp16's range.

    Raises:
        EngineError: a part is in no layer's name.
    """
    keep = named_layers(proto, fp32_layers, "precision::fp32")
    wanted = named_layers(proto, fp16_layers, "precision::fp16")
    inferred = shape_inference.infer_shapes(proto)
    floats = set(_float_tensors(inferred.graph))
    too_large = {
        tensor.name for tensor in proto.graph.initializer if not _fits_fp16(tensor, floats)
    }

    def runs_in_fp16(node: onnx.NodeProto) -> bool:
        name = layer_name(node)
        if name in keep or node.domain not in ("", "ai.onnx"):
            return False
        if not floats.intersection(node.output) or too_large.intersection(node.input):
            return False
        if name in wanted:
            return node.op_type in _POSSIBLE_OPS
        return (
            precision == "fp16"
            and node.op_type in _SAFE_OPS
            # Pixels count up to 255 in steps that fp16 would round after the multiplication.
            and not prepares_pixels(node)
        )

    cast = onnx.ModelProto()
    cast.CopyFrom(proto)
    _Casting(cast.graph, floats).apply([runs_in_fp16(node) for node in cast.graph.node])
    return cast


class _Casting:
    """Rewrites one graph in place."""

    def __init__(self, graph: onnx.GraphProto, floats: set[str]) -> None:
        self._graph = graph
        self._floats = floats
        self._weights = {tensor.name: tensor for tensor in graph.initializer}
        # Tensors that exist in the type that their name says.
        self._existing = {*self._weights, *(value.name for value in graph.input)}
        self._nodes: list[onnx.NodeProto] = []

    def apply(self, in_fp16: Sequence[bool]) -> None:
        """Cast the graph; `in_fp16` says for each of its nodes whether it runs in fp16."""
        for original, fp16 in zip(list(self._graph.node), in_fp16, strict=True):
            node = onnx.NodeProto()
            node.CopyFrom(original)
            for index, name in enumerate(node.input):
                if fp16 and name in self._floats:
                    node.input[index] = self._as_fp16(name)
                else:
                    self._as_it_was(name)
            for name in _names_in_bodies(node):
                self._as_it_was(name)
            if fp16:
                for index, name in enumerate(node.output):
                    if name in self._floats:
                        node.output[index] = _fp16_name(name)
            self._nodes.append(node)
            self._existing.update(node.output)
        for value in self._graph.output:
            self._as_it_was(value.name)
        del self._graph.node[:]
        self._graph.node.extend(self._nodes)
        # They repeat the types that the tensors had; engines work them out again.
        del self._graph.value_info[:]
        self._drop_unused_weights()

    def _as_fp16(self, name: str) -> str:
        """The name of a float tensor's fp16 version, which is made if there is none."""
        fp16 = _fp16_name(name)
        if fp16 not in self._existing:
            if (weight := self._weights.get(name)) is not None:
                values = numpy_helper.to_array(weight).astype(np.float16)
                self._graph.initializer.append(numpy_helper.from_array(values, fp16))
            else:
                self._add_cast(name, fp16, TensorProto.FLOAT16)
            self._existing.add(fp16)
        return fp16

    def _as_it_was(self, name: str) -> None:
        """Make sure that a tensor exists under its own name."""
        if name not in self._existing and _fp16_name(name) in self._existing:
            self._add_cast(_fp16_name(name), name, TensorProto.FLOAT)
            self._existing.add(name)

    def _add_cast(self, source: str, target: str, element_type: int) -> None:
        node = helper.make_node("Cast", [source], [target], name=f"{target}/cast", to=element_type)
        self._nodes.append(node)

    def _drop_unused_weights(self) -> None:
        used = {name for node in self._nodes for name in (*node.input, *_names_in_bodies(node))}
        used.update(value.name for value in self._graph.output)
        unused = [tensor for tensor in self._graph.initializer if tensor.name not in used]
        for tensor in unused:
            self._graph.initializer.remove(tensor)


def _float_tensors(graph: onnx.GraphProto) -> Iterator[str]:
    """Names of the fp32 tensors of a graph whose shapes and types were inferred."""
    for value in (*graph.input, *graph.value_info, *graph.output):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            yield value.name
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            yield tensor.name


def _fits_fp16(tensor: onnx.TensorProto, floats: set[str]) -> bool:
    if tensor.name not in floats:
        return True
    values = numpy_helper.to_array(tensor)
    return values.size == 0 or float(np.abs(values).max()) <= _MAX_FP16


def _names_in_bodies(node: onnx.NodeProto) -> Iterator[str]:
    """Names that the bodies of a loop or a condition read; some are tensors around it."""
    for body in bodies(node):
        for inner in body.node:
            yield from inner.input
            yield from _names_in_bodies(inner)
        yield from (value.name for value in body.output)


def _fp16_name(name: str) -> str:
    return f"{name}/fp16"
