"""One input or output of a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import repeat

import torch


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a model.

    Attributes:
        name: the tensor's name in the ONNX graph.
        dtype: the element type.
        shape: logical shape with the batch dimension first and None for it: (None, 3, 224, 224).
        channels_last: True where the graph wants the memory order N, H, W, C. The logical shape
            stays (N, C, H, W), as with `torch.channels_last`.
        limits: the smallest and the largest size of each dimension of a row, for an input that
            takes rows of several shapes; empty for all others.
        open_names: what the file calls the dimensions of `shape` that it leaves open, "" where it
            says nothing; for messages.
    """

    name: str
    dtype: torch.dtype
    shape: tuple[int | None, ...]
    channels_last: bool = False
    limits: tuple[tuple[int, int], ...] = ()
    open_names: tuple[str, ...] = field(default=(), compare=False)

    @property
    def item_shape(self) -> tuple[int | None, ...]:
        """The shape of one row, without the batch dimension."""
        return self.shape[1:]

    @property
    def largest(self) -> tuple[int | None, ...]:
        """The shape of the largest row."""
        return tuple(high for _, high in self.limits) or self.item_shape

    @property
    def is_open(self) -> bool:
        """Whether it takes rows of several shapes."""
        return None in self.item_shape

    def takes(self, item_shape: Sequence[int]) -> bool:
        """Whether it takes rows of that shape."""
        if len(item_shape) != len(self.item_shape):
            return False
        if self.limits:
            return all(
                low <= size <= high
                for size, (low, high) in zip(item_shape, self.limits, strict=True)
            )
        return all(
            wanted in (None, size) for size, wanted in zip(item_shape, self.item_shape, strict=True)
        )

    def sized(self, item_shape: Sequence[int]) -> TensorSpec:
        """The same input for rows of one shape."""
        return replace(self, shape=(self.shape[0], *item_shape), limits=())

    @property
    def row_size(self) -> int | None:
        """How many scores an output has for an image, or None where it is no row of scores.

        Shapes such as N x classes x 1 x 1 and N x 1 x classes are rows, too.
        """
        sizes = [size for size in self.item_shape if size != 1]
        if not self.item_shape or not self.dtype.is_floating_point or len(sizes) > 1:
            return None
        return sizes[0] if sizes else 1

    def __str__(self) -> str:
        """In words: name, element type and shape, with the file's own names of open sizes."""
        names = self.open_names if len(self.open_names) == len(self.shape) else repeat("")
        first, *rest = (
            (name or "any") if size is None else str(size)
            for size, name in zip(self.shape, names, strict=False)
        )
        shape = " x ".join(["N" if self.shape[0] is None else first, *rest])
        return f"{self.name!r} {str(self.dtype).removeprefix('torch.')} {shape}"

    @property
    def rows_text(self) -> str:
        """The rows that it takes, such as "3x224x224" or "3x64..640x64..640"."""
        if not self.limits:
            return "x".join("?" if size is None else str(size) for size in self.item_shape)
        return "x".join(str(low) if low == high else f"{low}..{high}" for low, high in self.limits)

    def allocate(
        self, rows: int, device: torch.device | str = "cpu", *, pinned: bool = False
    ) -> torch.Tensor:
        """An uninitialised buffer of `rows` rows in the memory order that the graph wants.

        Rows are the largest that the tensor takes; a size that nothing limits is 1.

        Args:
            rows: how many.
            device: where.
            pinned: in page-locked CPU memory, from which a GPU copies by itself.
        """
        order = torch.channels_last if self.channels_last else torch.contiguous_format
        shape = [rows, *(size or 1 for size in self.largest)]
        return torch.empty(
            shape, dtype=self.dtype, device=device, memory_format=order, pin_memory=pinned
        )
