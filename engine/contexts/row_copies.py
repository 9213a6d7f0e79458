"""Rows in the memory of the host: read where they lie, or copied without giving the lock away."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from engine.tensor_spec import TensorSpec

# An image of 256 x 256 pixels: copied sooner than the interpreter's lock may be back.
_MOST_BYTES_UNDER_LOCK = 256 * 1024
_memmove = ctypes.PyDLL(None).memmove
_memmove.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_memmove.restype = None


def in_place(tensor: torch.Tensor, spec: TensorSpec) -> npt.NDArray[np.generic] | None:
    """The memory of rows that lie as the graph reads them; None where they do not.

    Args:
        tensor: rows of an input, logically (rows, *item_shape), in any dtype and on any device.
        spec: the input.

    Returns:
        A contiguous view, with the dimensions as the graph names them. It holds the memory.
    """
    if (
        tensor.dtype != spec.dtype
        or tensor.device.type != "cpu"
        or tensor.layout != torch.strided
        or tensor.requires_grad
        or tensor.is_neg()
        or tensor.dtype == torch.bfloat16  # which NumPy does not know
    ):
        return None
    # NumPy's view rather than torch's: every call of torch gives the interpreter's lock away.
    array: npt.NDArray[np.generic] = tensor.numpy()
    if spec.channels_last:
        array = array.transpose(0, 2, 3, 1)
    return array if array.flags.carray else None


def stage_rows(
    items: Sequence[Sequence[torch.Tensor]],
    buffers: Sequence[torch.Tensor],
    specs: Sequence[TensorSpec],
) -> None:
    """Copy the rows of items into buffers of the host, one behind the other.

    Small rows are copied without giving the interpreter's lock away: getting it back may take
    longer than the copy.
    """
    start = 0
    for item in items:
        rows = item[0].shape[0]
        for tensor, buffer, spec in zip(item, buffers, specs, strict=True):
            array = in_place(tensor, spec) if tensor.nbytes <= _MOST_BYTES_UNDER_LOCK else None
            if array is not None:
                row_bytes = buffer.stride(0) * buffer.element_size()
                _memmove(buffer.data_ptr() + start * row_bytes, tensor.data_ptr(), array.nbytes)
            else:
                buffer[start : start + rows].copy_(tensor)
        start += rows
