"""Freeing the batch dimension of an ONNX graph, and fixing the sizes of its inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx
from onnx import shape_inference

from engine.errors import EngineError
from engine.onnx_graph.tensors import true_inputs
from interfaces.error_text import first_line

_BATCH = "batch"
_CHANNELS = 3


def make_batch_dynamic(proto: onnx.ModelProto, path: Path) -> tuple[onnx.ModelProto, int | None]:
    """The model with a batch of any size, of which a trial has to show that its graph takes it.

    Args:
        proto: the model; it is not changed.
        path: its file, for the error message.

    Returns:
        `proto` itself where its batch is dynamic already, else a copy whose inputs and outputs say
        so; and the size that the file fixes, or None.

    Raises:
        EngineError: an input is an image without a batch dimension.
    """
    for value in true_inputs(proto):
        _check_batch_dimension(value, path)
    fixed = _fixed_batch(proto)
    if fixed is None:
        return proto, None
    freed = onnx.ModelProto()
    freed.CopyFrom(proto)
    # Intermediate shapes repeat the old size.
    del freed.graph.value_info[:]
    for value in [*true_inputs(freed), *freed.graph.output]:
        dims = value.type.tensor_type.shape.dim
        if dims:
            dims[0].dim_param = _BATCH
    return freed, fixed


def set_input_sizes(
    proto: onnx.ModelProto, sizes: Mapping[str, Sequence[int | None]], path: Path
) -> onnx.ModelProto:
    """A copy of the model in which sizes that it leaves open are fixed.

    Args:
        proto: the model.
        sizes: by the name of an input the shape of a row, with None for what stays open.
        path: its file, for messages.

    Raises:
        EngineError: the graph cannot take inputs of these sizes.
    """
    sized = onnx.ModelProto()
    sized.CopyFrom(proto)
    for value in true_inputs(sized):
        dims = value.type.tensor_type.shape.dim[1:]
        for dim, size in zip(dims, sizes.get(value.name, ()), strict=False):
            if size is not None:
                dim.dim_value = size
    del sized.graph.value_info[:]
    try:
        inferred = shape_inference.infer_shapes(sized, strict_mode=True, data_prop=True)
    except shape_inference.InferenceError as error:
        shapes = ", ".join("x".join(str(n or "?") for n in shape) for shape in sizes.values())
        raise EngineError(f"{path} cannot take rows of {shapes}: {first_line(error)}") from error
    for output, found in zip(sized.graph.output, inferred.graph.output, strict=True):
        output.CopyFrom(found)
    return sized


def _check_batch_dimension(value: onnx.ValueInfoProto, path: Path) -> None:
    sizes = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    if len(sizes) == 3 and sizes[0] and _CHANNELS in (sizes[0], sizes[2]):
        shape = " x ".join(str(size or "?") for size in sizes)
        raise EngineError(
            f"{path}: input {value.name!r} of shape {shape} has no batch dimension; export it "
            f"again with one in front: N x {shape}"
        )


def _fixed_batch(proto: onnx.ModelProto) -> int | None:
    """The batch size that the file fixes, or None."""
    for value in true_inputs(proto):
        dims = value.type.tensor_type.shape.dim
        if dims and dims[0].HasField("dim_value"):
            return int(dims[0].dim_value)
    return None
