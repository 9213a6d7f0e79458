"""ONNX operators that make, cut and rearrange tensors, in torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from engine.errors import EngineError
from engine.onnx_in_torch.node import Node


def dtype_of(element_type: int) -> torch.dtype:
    """The torch dtype of an ONNX element type.

    Raises:
        EngineError: torch has no such dtype.
    """
    if element_type == TensorProto.BFLOAT16:
        return torch.bfloat16
    try:
        empty = np.empty(0, helper.tensor_dtype_to_np_dtype(element_type))
        return torch.from_numpy(empty).dtype
    except (TypeError, KeyError) as error:
        name = TensorProto.DataType.Name(element_type)
        raise EngineError(f"the torch engine has no tensors of type {name}") from error


def to_torch(tensor: TensorProto) -> Tensor:
    """A tensor of the file, as a torch tensor of its own memory."""
    if tensor.data_type == TensorProto.BFLOAT16:
        bits = numpy_helper.to_array(tensor).view(np.int16)
        return torch.from_numpy(bits.copy()).view(torch.bfloat16)
    return torch.from_numpy(np.array(numpy_helper.to_array(tensor), order="C"))


def _constant(node: Node) -> Tensor:
    ((name, value),) = node.attributes.items()
    if name == "value":
        return to_torch(value)
    if name in ("value_float", "value_floats"):
        return torch.tensor(value, dtype=torch.float32)
    if name in ("value_int", "value_ints"):
        return torch.tensor(value, dtype=torch.int64)
    raise EngineError(f"the torch engine has no constants of kind {name}")


def _constant_of_shape(node: Node, shape: Tensor) -> Tensor:
    value = node.get("value", None)
    fill = torch.zeros(1) if value is None else to_torch(value)
    return fill.expand(shape.tolist()).clone()


def _shape(node: Node, x: Tensor) -> Tensor:
    sizes = x.shape[node.get("start", 0) : node.get("end", None)]
    return torch.tensor(sizes, dtype=torch.int64)


def _reshape(node: Node, x: Tensor, shape: Tensor) -> Tensor:
    sizes = shape.tolist()
    if not node.get("allowzero", 0):
        sizes = [x.shape[axis] if size == 0 else size for axis, size in enumerate(sizes)]
    return x.reshape(sizes)


def _flatten(node: Node, x: Tensor) -> Tensor:
    axis = node.get("axis", 1)
    rows = int(np.prod(x.shape[:axis]))
    return x.reshape(rows, -1)


def _transpose(node: Node, x: Tensor) -> Tensor:
    return x.permute(node.get("perm", list(reversed(range(x.ndim)))))


def _concat(node: Node, *parts: Tensor) -> Tensor:
    return torch.cat(parts, node.attributes["axis"])


def _expand(_node: Node, x: Tensor, shape: Tensor) -> Tensor:
    # Either side may have the larger sizes.
    return x.expand(np.broadcast_shapes(x.shape, tuple(shape.tolist())))


def _gather(node: Node, x: Tensor, indices: Tensor) -> Tensor:
    axis = node.get("axis", 0) % x.ndim
    flat = indices.flatten() % x.shape[axis]
    if flat.device == x.device or not flat.numel():
        picked = x.index_select(axis, flat.to(x.device))
    else:
        # A CUDA graph cannot record the copy of a constant to the GPU.
        picked = torch.cat([x.narrow(axis, index, 1) for index in flat.tolist()], axis)
    return picked.reshape(x.shape[:axis] + indices.shape + x.shape[axis + 1 :])


def _axes(node: Node, axes: Tensor | None) -> list[int]:
    """Axes from the input, or, before opset 13, from the attribute."""
    named: list[int] = node.get("axes", []) if axes is None else axes.tolist()
    return named


def _squeeze(node: Node, x: Tensor, axes: Tensor | None = None) -> Tensor:
    named = _axes(node, axes)
    return x.squeeze(tuple(named)) if named else x.squeeze()


def _unsqueeze(node: Node, x: Tensor, axes: Tensor | None = None) -> Tensor:
    named = _axes(node, axes)
    rank = x.ndim + len(named)
    for axis in sorted(axis % rank for axis in named):
        x = x.unsqueeze(axis)
    return x


def _slice(
    node: Node,
    x: Tensor,
    starts: Tensor | None = None,
    ends: Tensor | None = None,
    axes: Tensor | None = None,
    steps: Tensor | None = None,
) -> Tensor:
    # Before opset 10 the limits were attributes.
    begin: Sequence[int] = node.get("starts", []) if starts is None else starts.tolist()
    stop: Sequence[int] = node.get("ends", []) if ends is None else ends.tolist()
    along = _axes(node, axes) or range(len(begin))
    stride = [1] * len(begin) if steps is None else steps.tolist()
    for first, last, axis, step in zip(begin, stop, along, stride, strict=True):
        picked = range(*slice(first, last, step).indices(x.shape[axis]))
        ascending = picked if step > 0 else picked[::-1]
        rows = x.movedim(axis, 0)[ascending.start : ascending.stop : ascending.step]
        # Without a tensor of indices, whose copy to a GPU a CUDA graph cannot record.
        x = (rows if step > 0 else rows.flip(0)).movedim(0, axis)
    return x


def _split(node: Node, x: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, ...]:
    axis = node.get("axis", 0)
    given = node.get("split", None) if sizes is None else sizes.tolist()
    if given is None:
        given = -(-x.shape[axis] // len(node.outputs))
    return torch.split(x, given, dim=axis)


SHAPE_OPERATORS: dict[str, Callable[..., Tensor | tuple[Tensor, ...]]] = {
    "Concat": _concat,
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Reshape": _reshape,
    "Shape": _shape,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
