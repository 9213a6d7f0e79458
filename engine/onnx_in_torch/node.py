"""One node of an ONNX graph, with its attributes as Python values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import onnx
from onnx import helper


@dataclass(frozen=True)
class Node:
    """What an operator needs to know besides its input tensors.

    Attributes:
        name: the node's name, or that of its first output where it has none.
        op: the operator, with its domain in front where that is not ONNX's own.
        inputs: names of the input tensors, "" for one that is left out.
        outputs: names of the output tensors.
        attributes: strings decoded, tensors as `onnx.TensorProto`.
        opset: version of the operator set, as several operators changed their meaning.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]
    opset: int

    def get(self, attribute: str, default: Any) -> Any:
        """The value of an attribute, or a default."""
        return self.attributes.get(attribute, default)


def read_nodes(proto: onnx.ModelProto) -> list[Node]:
    """The nodes of a model's graph, in an order in which they can run."""
    opsets = {opset.domain or "ai.onnx": opset.version for opset in proto.opset_import}
    return [_read_node(node, opsets) for node in proto.graph.node]


def _read_node(node: onnx.NodeProto, opsets: dict[str, int]) -> Node:
    domain = node.domain or "ai.onnx"
    attributes = {}
    for attribute in node.attribute:
        value = helper.get_attribute_value(attribute)
        attributes[attribute.name] = value.decode() if isinstance(value, bytes) else value
    return Node(
        name=node.name or (node.output[0] if node.output else ""),
        op=node.op_type if domain == "ai.onnx" else f"{domain}.{node.op_type}",
        inputs=tuple(node.input),
        outputs=tuple(node.output),
        attributes=attributes,
        opset=opsets.get(domain, 1),
    )
