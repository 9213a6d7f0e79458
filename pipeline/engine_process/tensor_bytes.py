"""Tensors as the bytes that they are in memory, and back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch

Array: TypeAlias = np.ndarray[Any, Any]

# Types that NumPy lacks, as the integers that have their bits.
_BITS = {
    torch.bfloat16: torch.int16,
    torch.float8_e4m3fn: torch.int8,
    torch.float8_e5m2: torch.int8,
}
_LACKING = {str(dtype): dtype for dtype in _BITS}


def is_channels_last(tensor: torch.Tensor) -> bool:
    """Whether the values lie in memory in the order N, H, W, C."""
    return tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last)


def as_array(tensor: torch.Tensor, *, channels_last: bool = False) -> tuple[Array, str]:
    """A tensor's values one after the other, and the name of their type.

    Args:
        tensor: any dense tensor.
        channels_last: True for an array of N x H x W x C of a tensor that has this order.

    Returns:
        An array that is contiguous, of the integers with the same bits where NumPy lacks the type.
    """
    bits = _BITS.get(tensor.dtype)
    if bits is None:
        array: Array = tensor.numpy(force=True)
        dtype = array.dtype.str
    else:
        array, dtype = tensor.detach().view(bits).numpy(force=True), str(tensor.dtype)
    if channels_last:
        return array.transpose(0, 2, 3, 1), dtype
    return np.ascontiguousarray(array).reshape(array.shape), dtype


def bytes_of(array: Array) -> memoryview:
    """The bytes of an array that is contiguous."""
    return array.reshape(-1).view(np.uint8).data


def as_tensor(
    body: memoryview,
    dtype: str,
    shape: Sequence[int],
    *,
    channels_last: bool = False,
    copied: bool = False,
) -> torch.Tensor:
    """The tensor that `as_array` took, as a view of its bytes or a copy; others may follow them."""
    lacking = _LACKING.get(dtype)
    name = dtype if lacking is None else f"i{lacking.itemsize}"
    array = np.frombuffer(body, np.dtype(name), math.prod(shape)).reshape(shape)
    if channels_last:
        array = array.transpose(0, 3, 1, 2)
    tensor = torch.from_numpy(array.copy() if copied else array)
    return tensor if lacking is None else tensor.view(lacking)
