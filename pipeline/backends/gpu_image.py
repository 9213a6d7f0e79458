"""Images on the GPU that are no tensors yet.

Making a tensor of pixels takes several calls of torch, each of which gives the interpreter's lock
away, and under load another thread takes it. Operators within one node need addresses only, so they
hand on such an image; it becomes a tensor when an operator asks for one, and at the latest at the
end of the node.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from engine.contexts.cuda_context import CudaContext
from pipeline.backends.batch_decoder import Block
from pipeline.backends.buffer_pool import Loan


class Pixels(NamedTuple):
    """Where an image's pixels lie: three bytes each, without gaps within a row."""

    address: int
    height: int
    width: int
    row_bytes: int


class GpuImage(ABC):
    """An image on the GPU that is no tensor yet."""

    @abstractmethod
    def tensor(self) -> torch.Tensor:
        """The image as uint8 of shape (1, 3, height, width)."""


class DecodedImage(GpuImage):
    """What a decoder has left in memory of its own, which it uses again once this is gone.

    Args:
        loan: the memory with the image.
    """

    __slots__ = ("_loan", "pixels")

    def __init__(self, loan: Loan[Block]) -> None:
        self._loan = loan
        block = loan.block
        self.pixels = Pixels(block.address, block.height, block.width, 3 * block.width)

    def tensor(self) -> torch.Tensor:
        """A copy."""
        return self._loan.block.tensor().permute(2, 0, 1).unsqueeze(0).clone()


class GraphRow(GpuImage):
    """An image that the engine's CUDA graph will make, unless a backend asks for it before.

    Args:
        context: the execution context whose graphs begin with making it.
        pixels: what they are to make it of.
        source: what keeps these pixels alive.
        make: makes it now.
    """

    __slots__ = ("_make", "_source", "context", "pixels")

    def __init__(
        self,
        context: CudaContext,
        pixels: Pixels,
        source: Any,
        make: Callable[[Sequence[Pixels]], Sequence[torch.Tensor]],
    ) -> None:
        self.context = context
        self.pixels = pixels
        self._source = source
        self._make = make

    def tensor(self) -> torch.Tensor:
        """The image, made now."""
        return self._make([self.pixels])[0]


def as_gpu_tensor(data: Any) -> Any:
    """An image that is no tensor yet as a tensor; other data as it is."""
    return data.tensor() if isinstance(data, GpuImage) else data
