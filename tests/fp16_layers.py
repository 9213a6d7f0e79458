"""What of a graph has been cast to fp16."""

from __future__ import annotations

import onnx

from engine.onnx_graph.layer_names import layer_name


def fp16_layer_names(proto: onnx.ModelProto) -> set[str]:
    """The names of the layers of a cast model that compute in fp16."""
    return {
        layer_name(node)
        for node in proto.graph.node
        if node.op_type != "Cast" and any(name.endswith("/fp16") for name in node.output)
    }
