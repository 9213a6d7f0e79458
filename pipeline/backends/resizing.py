"""Resizing of a whole batch in one launch, by itself or within the engine's CUDA graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from engine.contexts.cuda_context import GraphPrologue
from pipeline.backends.gpu_image import Pixels
from pipeline.backends.resize_kernel import resize_bilinear


class PixelsTable:
    """Where the pixels of a batch lie, written on the host and read by a kernel.

    Args:
        rows: images of the largest batch.
        device: the GPU.
    """

    def __init__(self, rows: int, device: torch.device) -> None:
        self._on_gpu = torch.empty((rows, 4), dtype=torch.int64, device=device)
        self._staged = torch.empty((rows, 4), dtype=torch.int64, pin_memory=True)
        self._staged_rows = self._staged.numpy()
        # So that a launch may read the table before a batch has been written.
        self._one_pixel = torch.zeros(3, dtype=torch.uint8, device=device)
        self.write([Pixels(self._one_pixel.data_ptr(), 1, 1, 3)], rows)

    def write(self, images: Sequence[Pixels], rows: int) -> None:
        """Write a batch; rows beyond its end repeat its first image."""
        count = len(images)
        self._staged_rows[:count] = images
        self._staged_rows[count:rows] = images[0]

    def enqueue_copy(self, rows: int) -> torch.Tensor:
        """Enqueue the copy of so many rows; what is staged must stay until it is done."""
        on_gpu = self._on_gpu[:rows]
        on_gpu.copy_(self._staged[:rows], non_blocking=True)
        return on_gpu


class Resizer:
    """Launches for the batches of one instance.

    Args:
        height: of the results, in pixels.
        width: of the results, in pixels.
        most_images: of one launch.
        device: the GPU.
    """

    def __init__(self, height: int, width: int, most_images: int, device: torch.device) -> None:
        self._size = (height, width)
        self._device = device
        self._table = PixelsTable(most_images, device)
        self._copied = torch.cuda.Event(blocking=True)

    def resize(self, images: Sequence[Pixels]) -> Sequence[torch.Tensor]:
        """Enqueue one launch; uint8 tensors of shape (1, 3, height, width)."""
        # What is staged must not change while the GPU still copies it for the launch before.
        self._copied.synchronize()
        self._table.write(images, len(images))
        table = self._table.enqueue_copy(len(images))
        self._copied.record()
        out = torch.empty(
            (len(images), 3, *self._size),
            dtype=torch.uint8,
            device=self._device,
            memory_format=torch.channels_last,
        )
        resize_bilinear(table, out)
        return torch.split(out, 1)


class ResizePrologue(GraphPrologue):
    """Resizing as a part of the engine's graphs; the sources of the rows are `Pixels`.

    Args:
        max_rows: rows of the engine's largest batch.
        device: the GPU.
    """

    def __init__(self, max_rows: int, device: torch.device) -> None:
        self._table = PixelsTable(max_rows, device)

    def enqueue(self, rows: torch.Tensor) -> None:
        """Enqueue the copy of the table, and the launch."""
        resize_bilinear(self._table.enqueue_copy(len(rows)), rows)

    def prepare(self, sources: Sequence[Any], rows: int) -> None:
        """Write the `Pixels` of a batch."""
        self._table.write(sources, rows)
