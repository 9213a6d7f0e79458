"""One input or output of a model."""

from __future__ import annotations

from dataclasses import dataclass

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
    """

    name: str
    dtype: torch.dtype
    shape: tuple[int | None, ...]
    channels_last: bool = False

    @property
    def item_shape(self) -> tuple[int | None, ...]:
        """The shape of one row, without the batch dimension."""
        return self.shape[1:]

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
        """In words: name, element type and shape."""
        first, *rest = ("?" if size is None else str(size) for size in self.shape)
        shape = " x ".join(["N" if first == "?" else first, *rest])
        return f"{self.name!r} {str(self.dtype).removeprefix('torch.')} {shape}"

    def allocate(
        self, rows: int, device: torch.device | str = "cpu", *, pinned: bool = False
    ) -> torch.Tensor:
        """An uninitialised buffer of `rows` rows in the memory order that the graph wants.

        Args:
            rows: how many.
            device: where.
            pinned: in page-locked CPU memory, from which a GPU copies by itself.
        """
        order = torch.channels_last if self.channels_last else torch.contiguous_format
        shape = [rows, *(size or 1 for size in self.item_shape)]
        return torch.empty(
            shape, dtype=self.dtype, device=device, memory_format=order, pin_memory=pinned
        )
