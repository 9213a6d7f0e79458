"""From a torch network to an ONNX file that any runtime reads."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import onnx
import torch
from onnx import helper
from torch import Tensor, nn

from engine.normalization import Normalization
from engine.onnx_graph.metadata import declare_normalization, declare_note
from engine.onnx_graph.optimization import optimized

OPSET = 17
# Part of the name of every exported file: raise it when this module exports something else.
EXPORTER_VERSION = 1
INPUT_NAME, OUTPUT_NAME = "input", "scores"


class _Probabilities(nn.Module):
    """A classifier with Softmax behind its logits."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images)
        return logits.softmax(dim=1)


def export_classifier(
    network: nn.Module, normalization: Normalization, height: int, width: int, note: str = ""
) -> bytes:
    """Export a classifier with a dynamic batch.

    Args:
        network: normalized float32 images (N, 3, height, width) to logits (N, classes).
        normalization: what it expects of its pixels; goes into the metadata.
        height: of the images.
        width: of the images.
        note: what users of its answers have to know; goes into the metadata.

    Returns:
        A serialized ONNX model: input INPUT_NAME, output OUTPUT_NAME (probabilities), BatchNorm
        folded into the convolutions, standard operators only.
    """
    with tempfile.TemporaryDirectory() as folder:
        exported = Path(folder, "exported.onnx")
        images = torch.zeros(1, 3, height, width)
        export_network(_Probabilities(network).eval(), images, exported, [OUTPUT_NAME])
        proto = _with_constants_folded(exported)
    declare_normalization(proto, normalization)
    if note:
        declare_note(proto, note)
    onnx.checker.check_model(proto, full_check=True)
    content: bytes = proto.SerializeToString(deterministic=True)
    return content


def outline_of_classifier(
    normalization: Normalization, height: int, width: int, classes: int = 1000
) -> onnx.ModelProto:
    """What `export_classifier` would export, with the same inputs and outputs and no network."""
    images = helper.make_tensor_value_info(
        INPUT_NAME, onnx.TensorProto.FLOAT, ["batch", 3, height, width]
    )
    scores = helper.make_tensor_value_info(OUTPUT_NAME, onnx.TensorProto.FLOAT, ["batch", classes])
    nodes = [helper.make_node("Softmax", [INPUT_NAME], [OUTPUT_NAME], axis=1)]
    graph = helper.make_graph(nodes, "outline", [images], [scores])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    declare_normalization(proto, normalization)
    return proto


def export_network(
    network: nn.Module,
    example: Tensor,
    path: Path,
    output_names: Sequence[str],
    opset: int = OPSET,
) -> None:
    """Write a network of one input, INPUT_NAME, to an ONNX file with a dynamic batch.

    Args:
        network: it is traced.
        example: an input of it.
        path: the file.
        output_names: a name for each of its outputs.
        opset: the operator set.
    """
    with warnings.catch_warnings():
        # The exporter that traces is the faster one, and these networks have no control flow.
        warnings.filterwarnings("ignore", "You are using the legacy TorchScript-based ONNX export")
        warnings.filterwarnings("ignore", "The feature will be removed", DeprecationWarning)
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)  # type: ignore[attr-defined]
        # What it leaves is folded below.
        warnings.filterwarnings("ignore", "Constant folding - Only steps=1 can be")
        torch.onnx.export(
            network,
            (example,),
            path,
            dynamo=False,
            opset_version=opset,
            input_names=[INPUT_NAME],
            output_names=list(output_names),
            dynamic_axes={name: {0: "batch"} for name in (INPUT_NAME, *output_names)},
        )


def _with_constants_folded(path: Path) -> onnx.ModelProto:
    """The model without the chains of nodes that compute constants, such as padding sizes."""
    proto = onnx.load_model_from_string(optimized(path.read_bytes(), for_this_cpu=False))
    # onnxruntime declares all the operator sets that it knows, and other runtimes refuse those.
    used = {node.domain for node in proto.graph.node}
    kept = [opset for opset in proto.opset_import if opset.domain in used]
    del proto.opset_import[:]
    proto.opset_import.extend(kept)
    return proto
