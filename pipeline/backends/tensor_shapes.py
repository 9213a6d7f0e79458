"""Operators that change the shape of a tensor, its type or its place in memory, and no value."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from pipeline.backends.cpu_operator import needed
from pipeline.backends.interface import InstanceConfig, Item
from pipeline.backends.registry import register
from pipeline.backends.tensor_operator import EachTensor, TensorOperator, as_nchw
from pipeline.keys import TASK_DATA_KEY
from pipeline.language.settings import Setting, read_dimension, read_dimensions

_DIM_EXPECTED = "the number of a dimension; -1 is the last"


@register("PermuteTensor")
class PermuteTensor(EachTensor):
    """Reorders the dimensions: the first of the result is the tensor's `dims[0]`, and so on."""

    settings: ClassVar[tuple[Setting, ...]] = (
        Setting(
            "dims",
            read_dimensions,
            'numbers of dimensions: "0,2,3,1"',
            help="the new order",
            example="0,2,3,1",
        ),
    )

    def init(self, config: InstanceConfig) -> None:
        """Read the order."""
        super().init(config)
        self._dims: tuple[int, ...]
        (self._dims,) = needed(config, "PermuteTensor", "dims")

    def apply(self, tensor: torch.Tensor) -> torch.Tensor:
        """A view."""
        order = [dim + tensor.ndim if dim < 0 else dim for dim in self._dims]
        if sorted(order) != list(range(tensor.ndim)):
            raise ValueError(
                f"PermuteTensor: dims = {', '.join(map(str, self._dims))} does not name each of "
                f"the {tensor.ndim} dimensions of {tuple(tensor.shape)} once"
            )
        return tensor.permute(order)


@register("UnsqueezeTensor")
class UnsqueezeTensor(EachTensor):
    """Puts a dimension of size 1 before dimension `dim`."""

    settings: ClassVar[tuple[Setting, ...]] = (
        Setting("dim", read_dimension, _DIM_EXPECTED, help="before which one; 0 if it is missing"),
    )

    def init(self, config: InstanceConfig) -> None:
        """Read where; at the beginning if nothing is given."""
        super().init(config)
        self._dim: int = config.settings["dim"] or 0

    def apply(self, tensor: torch.Tensor) -> torch.Tensor:
        """A view."""
        return tensor.unsqueeze(self._dim)


@register("SqueezeTensor")
class SqueezeTensor(EachTensor):
    """Takes dimension `dim` away, which must have the size 1; without it all of that size."""

    settings: ClassVar[tuple[Setting, ...]] = (
        Setting("dim", read_dimension, _DIM_EXPECTED, help="which one; all if it is missing"),
    )

    def init(self, config: InstanceConfig) -> None:
        """Read which."""
        super().init(config)
        self._dim: int | None = config.settings["dim"]

    def apply(self, tensor: torch.Tensor) -> torch.Tensor:
        """A view."""
        if self._dim is None:
            return tensor.squeeze()
        if tensor.shape[self._dim] != 1:
            raise ValueError(
                f"SqueezeTensor: dimension {self._dim} of {tuple(tensor.shape)} has not the size 1"
            )
        return tensor.squeeze(self._dim)


@register("ContiguousTensor")
class ContiguousTensor(EachTensor):
    """Puts the values into memory in the order of the dimensions; a copy if they are not."""

    def apply(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor or a copy."""
        return tensor.contiguous()


@register("FloatTensor")
class FloatTensor(EachTensor):
    """Makes float32 of the values, unscaled."""

    def apply(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor or a copy."""
        return tensor.float()


@register("NCHWTensor")
class NCHWTensor(EachTensor):
    """Brings an image of the shape (height, width, channels) to (1, channels, height, width)."""

    def apply(self, tensor: torch.Tensor) -> torch.Tensor:
        """A view."""
        return as_nchw(tensor, type(self).__name__)


@register("FloatNCHWTensor")
class FloatNCHWTensor(EachTensor):
    """Does what NCHWTensor and then FloatTensor do, contiguous in memory."""

    def apply(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor or a copy."""
        return as_nchw(tensor, type(self).__name__).float().contiguous()


@register("LastBatchTensor")
class LastBatchTensor(EachTensor):
    """Keeps the last row: the shape (rows, ...) becomes (1, ...)."""

    def apply(self, tensor: torch.Tensor) -> torch.Tensor:
        """A view."""
        if not tensor.ndim or not tensor.shape[0]:
            raise ValueError(
                f"LastBatchTensor takes at least one row, got the shape {tuple(tensor.shape)}"
            )
        return tensor[-1:]


@register("CatTensor")
class CatTensor(TensorOperator):
    """Joins a list of tensors along their first dimension; a single tensor is handed on.

    Of one item: the tensors of several items are joined by the engine's node itself.
    """

    def process(self, item: Item) -> Any:
        """The joined tensor."""
        data = item[TASK_DATA_KEY]
        if not isinstance(data, list | tuple):
            return self._tensor(data)
        if not data:
            raise ValueError("CatTensor got an empty list")
        return torch.cat([self._tensor(one) for one in data])


@register("SplitTensor")
class SplitTensor(EachTensor):
    """Hands on the rows of its item.

    torchpipe splits up a batch that CatTensor has joined. Here both are of one item, and the rows
    of a batch are given to its items by the engine's node itself.
    """

    def apply(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor itself."""
        if not tensor.ndim:
            raise ValueError("SplitTensor got a single number, which has no rows")
        return tensor
