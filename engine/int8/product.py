"""One matrix product of a graph: what enters it, and rounding its weights by that.

To the nearest step is not the best: filters whose weights nearly cancel lose what is left of them.
The error of each weight is instead made up for by the weights that are rounded after it (GPTQ,
Frantar et al. 2022), and the mean of what remains by the bias.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import numpy_helper
from torch.nn import functional

# At so many places of each view what enters a product is looked at.
_PLACES = 32
# Parts of the mean variance that is added to each: more rounds nearer to the next step.
_DAMPING = 0.1
# A sum of more terms is rounded to the nearest steps: its moments would take too much memory.
_MAX_TERMS = 4608
_COLUMNS_AT_ONCE = 32

WEIGHT_ROUNDING = f"compensated, bias corrected, {_PLACES} places, damping {_DAMPING}"
"""The method: what tells its weights from those of another."""


@dataclass
class Product:
    """A Conv, Gemm or MatMul, as matrix products: one a group.

    Attributes:
        rows: the weights, (groups, channels, terms).
        samples: from what enters it, (groups, places, terms).
    """

    node: onnx.NodeProto
    weight: onnx.TensorProto
    bias: onnx.TensorProto | None
    rows: torch.Tensor
    channel_axis: int
    samples: Callable[[torch.Tensor], torch.Tensor]

    def __post_init__(self) -> None:
        groups, _, terms = self.rows.shape
        self._count = 0
        self._sum = torch.zeros(groups, terms, dtype=torch.float64)
        self._moments = torch.zeros(groups, terms, terms) if terms <= _MAX_TERMS else None

    @property
    def moments_bytes(self) -> int:
        """Memory of what is learnt about the inputs."""
        groups, _, terms = self.rows.shape
        return 4 * groups * terms * terms if terms <= _MAX_TERMS else 0

    def observe(self, value: npt.NDArray[np.float32]) -> None:
        """Learn from one input."""
        samples = self.samples(torch.from_numpy(value))
        self._count += samples.shape[1]
        self._sum += samples.sum(dim=1)
        if self._moments is not None:
            self._moments.baddbmm_(samples.transpose(1, 2), samples)

    def round(self, largest: int) -> npt.NDArray[np.float64]:
        """Round weights and bias in place; what each channel's largest step stands for."""
        rows = self.rows.double()
        bounds = rows.abs().amax(dim=2, keepdim=True)
        steps = torch.where(bounds > 0, bounds, 1.0) / largest
        mean = self._sum / self._count
        numbers = (rows / steps).round()
        if self._moments is not None:
            moments = self._moments / self._count
            if self.bias is not None:
                moments -= (mean[:, :, None] * mean[:, None, :]).float()
            numbers = _compensated((rows / steps).float(), moments, largest)
        change = numbers * steps - rows
        shape = self.weight.dims
        matrix = (rows + change).flatten(0, 1)
        values = (matrix.T if self.channel_axis else matrix).reshape(tuple(shape)).float().numpy()
        self.weight.CopyFrom(numpy_helper.from_array(values.copy(), self.weight.name))
        if self.bias is not None:
            shift = (change @ mean[:, :, None]).flatten().numpy()
            values = (numpy_helper.to_array(self.bias) - shift).astype(np.float32)
            self.bias.CopyFrom(numpy_helper.from_array(values, self.bias.name))
        self._moments = None
        result: npt.NDArray[np.float64] = bounds.flatten().numpy()
        return result


def _compensated(rows: torch.Tensor, moments: torch.Tensor, largest: int) -> torch.Tensor:
    """Whole numbers for `rows`, in steps, with the least squared error of the products.

    Args:
        rows: (groups, channels, terms).
        moments: of the terms' inputs, (groups, terms, terms).
        largest: of the numbers.
    """
    terms = rows.shape[2]
    diagonal = moments.diagonal(dim1=1, dim2=2)
    diagonal += _DAMPING * diagonal.mean(dim=1, keepdim=True).clamp(min=1e-12)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(moments))
    spread = torch.linalg.cholesky(inverse, upper=True)
    left, numbers = rows.clone(), torch.empty_like(rows)
    for begin in range(0, terms, _COLUMNS_AT_ONCE):
        end = min(begin + _COLUMNS_AT_ONCE, terms)
        errors = torch.empty_like(rows[:, :, begin:end])
        for column in range(begin, end):
            numbers[:, :, column] = left[:, :, column].round().clamp(-largest, largest)
            error = left[:, :, column] - numbers[:, :, column]
            error = error / spread[:, column, column, None]
            left[:, :, column:end] -= error[:, :, None] * spread[:, None, column, column:end]
            errors[:, :, column - begin] = error
        left[:, :, end:] -= errors @ spread[:, begin:end, end:]
    return numbers


def vectors(value: torch.Tensor) -> torch.Tensor:
    """What a matrix is multiplied with: of (..., terms) some vectors, (1, places, terms)."""
    return value.reshape(1, -1, value.shape[-1])[:, :_PLACES]


class Patches:
    """What a filter sees at some places of an image."""

    def __init__(self, weight: torch.Tensor, groups: int, attributes: Mapping[str, Any]) -> None:
        self._groups = groups
        self._kernel = tuple(weight.shape[2:])
        self._strides = attributes.get("strides", [1, 1])
        self._dilations = attributes.get("dilations", [1, 1])
        self._pads = attributes.get("pads", [0, 0, 0, 0])
        self._random = torch.Generator().manual_seed(1)

    def __call__(self, value: torch.Tensor) -> torch.Tensor:
        """Of an image (1, channels, height, width) some patches, (groups, places, terms)."""
        top, left, bottom, right = self._pads
        image = functional.pad(value[0], (left, right, top, bottom))
        offsets = [
            torch.arange(size) * step
            for size, step in zip(self._kernel, self._dilations, strict=True)
        ]
        down, across = (
            (size - int(offset[-1]) - 1) // stride + 1
            for size, offset, stride in zip(image.shape[1:], offsets, self._strides, strict=True)
        )
        place = torch.randperm(down * across, generator=self._random)[:_PLACES]
        rows = (place // across * self._strides[0])[:, None, None] + offsets[0][:, None]
        columns = (place % across * self._strides[1])[:, None, None] + offsets[1]
        pixels = (rows * image.shape[2] + columns).flatten()
        patches = image.flatten(1).index_select(1, pixels)
        per_group = patches.reshape(self._groups, -1, len(place), math.prod(self._kernel))
        return per_group.transpose(1, 2).flatten(2)
