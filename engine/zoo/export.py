"""From a torch network to an ONNX file that any runtime reads."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
import torch
from onnx import helper
from torch import Tensor, nn

from engine.errors import EngineError
from engine.normalization import Normalization
from engine.onnx_graph.metadata import declare_normalization, declare_note
from engine.onnx_graph.optimization import optimized
from engine.tensor_spec import TensorSpec
from engine.zoo.agreement import relative_difference
from engine.zoo.flat_network import Flat
from interfaces.error_text import in_one_line

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
        trace(_Probabilities(network).eval(), [images], exported, [INPUT_NAME], [OUTPUT_NAME])
        proto = _with_constants_folded(exported)
    declare_normalization(proto, normalization)
    if note:
        declare_note(proto, note)
    onnx.checker.check_model(proto, full_check=True)
    content: bytes = proto.SerializeToString(deterministic=True)
    return content


@dataclass(frozen=True)
class Exported:
    """An exported network.

    Attributes:
        content: the serialized model.
        difference: the largest one from torch, see `relative_difference`.
    """

    content: bytes
    difference: float


def export_network(
    network: nn.Module,
    inputs: Sequence[TensorSpec],
    normalization: Normalization | None = None,
    warn: Callable[[Sequence[str]], None] = lambda _: None,
) -> Exported:
    """Export any network with a dynamic batch, and compare the two.

    Args:
        network: on the CPU, in eval mode.
        inputs: what it takes, in order; all sizes are given but that of the batch.
        normalization: what it expects of its pixels, for the metadata, or None.
        warn: called with the places in its forward where something was fixed while it was traced,
            such as a condition on values.

    Raises:
        EngineError: it cannot be exported, or the exported model gives something else.
    """
    examples = [_example(spec) for spec in inputs]
    flat = Flat(network, examples).eval()
    names = [spec.name for spec in inputs]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "exported.onnx")
        try:
            warn(trace(flat, examples, path, names, flat.names))
            proto = _with_constants_folded(path)
        except Exception as error:
            # What the exporters of torch and onnxruntime raise has no common base.
            raise EngineError(in_one_line(error)) from error
    taken = {value.name for value in proto.graph.input}
    if unused := [name for name in names if name not in taken]:
        raise EngineError(f"no output depends on the input {unused[0]!r}")
    if normalization is not None:
        declare_normalization(proto, normalization)
    content: bytes = proto.SerializeToString(deterministic=True)
    return Exported(content, relative_difference(flat, content))


def _example(spec: TensorSpec) -> Tensor:
    """Two rows: of one row an exporter may take the batch for any other dimension of 1."""
    return torch.ones([2, *(size or 1 for size in spec.item_shape)], dtype=spec.dtype)


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


def trace(
    network: nn.Module,
    examples: Sequence[Tensor],
    path: Path,
    inputs: Sequence[str],
    outputs: Sequence[str],
    opset: int = OPSET,
) -> tuple[str, ...]:
    """Write a network to an ONNX file with a dynamic batch, as it runs for the examples.

    Args:
        network: in eval mode.
        examples: one of each input.
        path: the file.
        inputs: a name for each input.
        outputs: a name for each output.
        opset: the operator set.

    Returns:
        Where in the network's code something was fixed, such as a condition on values.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        # The tracing exporter is faster, and needs no package of its own.
        torch.onnx.export(
            network,
            tuple(examples),
            path,
            dynamo=False,
            opset_version=opset,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes={name: {0: "batch"} for name in (*inputs, *outputs)},
        )
    traced = [one for one in caught if issubclass(one.category, torch.jit.TracerWarning)]  # type: ignore[attr-defined]
    return tuple(
        dict.fromkeys(
            f"{one.filename}, line {one.lineno}: {str(one.message).split('.')[0]}" for one in traced
        )
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
