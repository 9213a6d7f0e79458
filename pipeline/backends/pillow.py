"""Resizing as Pillow does it, which models that were trained with torchvision have seen."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch

from pipeline.backends.cpu_operator import (
    RESIZE_SETTINGS,
    CpuOperator,
    byte_matrix,
    needed_size,
)
from pipeline.backends.interface import InstanceConfig, Item
from pipeline.backends.registry import register
from pipeline.backends.tensor_operator import as_nchw, as_tensor
from pipeline.errors import MissingHereError
from pipeline.keys import TASK_DATA_KEY
from pipeline.language.settings import Setting


class _PillowResize(CpuOperator):
    """Resizes to `resize_h` x `resize_w` pixels with Pillow's bilinear filter."""

    settings: ClassVar[tuple[Setting, ...]] = RESIZE_SETTINGS

    def init(self, config: InstanceConfig) -> None:
        """Read the size and load Pillow."""
        super().init(config)
        name = type(self).__name__
        height, width = needed_size(config, name, "resize_h", "resize_w")
        self._size = (width, height)
        try:
            from PIL import Image
        except ImportError as error:
            raise MissingHereError(
                f"{name} needs the package pillow; install it with: "
                "pip install 'thriftpipe[pillow]'"
            ) from error
        self._image = Image

    def _resized(self, pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """A matrix of bytes, resized; which channel is which makes no difference."""
        image = self._image.fromarray(pixels)
        # A copy, since Pillow's own memory may not be written to.
        return np.array(image.resize(self._size, self._image.Resampling.BILINEAR))


@register("PillowResizeMat")
class PillowResizeMat(_PillowResize):
    """Resizes to `resize_h` x `resize_w` pixels with Pillow's bilinear filter; takes uint8 only.

    Unlike ResizeMat it averages all pixels that become one pixel, which avoids aliasing in smaller
    images.
    """

    def process(self, item: Item) -> Any:
        """Resize one matrix."""
        return self._resized(byte_matrix(item))


@register("PillowResizeTensor")
class PillowResizeTensor(_PillowResize):
    """Does what PillowResizeMat does with an image tensor; takes uint8 and gives float32.

    Pillow computes on the CPU: a tensor on a GPU is copied there, and its result back.
    """

    # The tensor may lie on a GPU, whose work stays in the instance's own thread.
    any_thread = False

    def process(self, item: Item) -> Any:
        """float32 of the shape (1, 3, resize_h, resize_w), of whole numbers, where the data is."""
        name = type(self).__name__
        image = as_nchw(as_tensor(item[TASK_DATA_KEY], name), name)
        if image.shape[0] != 1:
            raise ValueError(f"{name} takes one image, got the shape {tuple(image.shape)}")
        pixels = np.ascontiguousarray(image[0].permute(1, 2, 0).detach().cpu().numpy())
        resized = self._resized(byte_matrix({TASK_DATA_KEY: pixels}))
        tensor = torch.from_numpy(resized).permute(2, 0, 1).unsqueeze(0).float()
        return tensor.to(image.device)
