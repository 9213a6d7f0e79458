"""Freeing the batch dimension of an ONNX graph, and fixing the size of its image input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import helper, shape_inference

from engine.interface import EngineError

_BATCH = "batch"


def make_batch_dynamic(proto: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    """The model with a batch of any size.

    Args:
        proto: the model; it is not changed.
        path: its file, for the error message.

    Returns:
        `proto` itself where its batch is dynamic already. Otherwise a copy whose inputs say so,
        if two images in one batch get what each of them gets alone.

    Raises:
        EngineError: the batch size is built into the graph.
    """
    fixed = _fixed_batch(proto)
    if fixed is None:
        return proto
    freed = onnx.ModelProto()
    freed.CopyFrom(proto)
    # Intermediate shapes repeat the old size.
    del freed.graph.value_info[:]
    for value in [*_true_inputs(freed), *freed.graph.output]:
        dims = value.type.tensor_type.shape.dim
        if dims:
            dims[0].dim_param = _BATCH
    if reason := _why_rows_disagree(freed):
        raise EngineError(
            f"{path} is made for batches of exactly {fixed} and cannot be changed ({reason}); "
            f"export it again with a dynamic batch dimension"
        )
    return freed


def set_input_size(
    proto: onnx.ModelProto, input_name: str, height: int, width: int, path: Path
) -> onnx.ModelProto:
    """A copy of the model that takes images of one size.

    Raises:
        EngineError: the file fixes another size, or the graph cannot take this one.
    """
    sized = onnx.ModelProto()
    sized.CopyFrom(proto)
    (value,) = (v for v in sized.graph.input if v.name == input_name)
    dims = value.type.tensor_type.shape.dim
    for dim, wanted, axis in ((dims[2], height, "height"), (dims[3], width, "width")):
        if dim.HasField("dim_value") and dim.dim_value != wanted:
            raise EngineError(f"{path} takes images of {axis} {dim.dim_value}, got {wanted}")
        dim.dim_value = wanted
    del sized.graph.value_info[:]
    try:
        inferred = shape_inference.infer_shapes(sized, strict_mode=True, data_prop=True)
    except shape_inference.InferenceError as error:
        reason = str(error).strip().splitlines()[0]
        raise EngineError(f"{path} cannot take images of {height} x {width}: {reason}") from error
    for output, found in zip(sized.graph.output, inferred.graph.output, strict=True):
        output.CopyFrom(found)
    return sized


def _true_inputs(proto: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    stored = {tensor.name for tensor in proto.graph.initializer}
    return [value for value in proto.graph.input if value.name not in stored]


def _fixed_batch(proto: onnx.ModelProto) -> int | None:
    """The batch size that the file fixes, or None."""
    for value in _true_inputs(proto):
        dims = value.type.tensor_type.shape.dim
        if dims and dims[0].HasField("dim_value"):
            return int(dims[0].dim_value)
    return None


def _why_rows_disagree(proto: onnx.ModelProto) -> str:
    """Why two different rows in one batch do not get what they get alone; "" where they do."""
    # Imported here because only models with a fixed batch need a trial run.
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    random = np.random.default_rng(seed=0)
    feeds = {}
    for value in _true_inputs(proto):
        tensor = value.type.tensor_type
        shape = [2, *(dim.dim_value or 1 for dim in tensor.shape.dim[1:])]
        dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        feeds[value.name] = random.uniform(0, 2, shape).astype(dtype)
    try:
        session = onnxruntime.InferenceSession(
            proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        together = session.run(None, feeds)
        for row in range(2):
            alone = session.run(None, {name: batch[row : row + 1] for name, batch in feeds.items()})
            for batch, single in zip(together, alone, strict=True):
                if batch.shape[0] != 2 or not np.allclose(
                    batch[row : row + 1], single, rtol=1e-3, atol=1e-4
                ):
                    return "its rows depend on each other"
    except Exception as error:  # noqa: BLE001 (onnxruntime's own classes share no other base)
        return str(error).strip().splitlines()[0]
    return ""
