"""Operators that resize image tensors with torch, on the CPU or on the GPU where the tensor lies.

As torchpipe's do, they give float32, and the corners of the result are those of the image
(`align_corners`), which OpenCV, ResizeMat and ResizeTensor do not do.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch.nn import functional

from pipeline.backends.cpu_operator import needed_size, size_of_item
from pipeline.backends.interface import InstanceConfig, Item
from pipeline.backends.padding import (
    INVERSE_KEY,
    MAX_SETTINGS,
    PAD_VALUE,
    InverseTransform,
    fitted_size,
)
from pipeline.backends.registry import register
from pipeline.backends.tensor_operator import TensorOperator, as_nchw
from pipeline.keys import TASK_DATA_KEY
from pipeline.language.settings import Setting


class _ImageOperator(TensorOperator):
    """An operator on one image tensor."""

    def _image(self, item: Item) -> torch.Tensor:
        """The item's image: float32 of the shape (1, channels, height, width)."""
        name = type(self).__name__
        image = as_nchw(self._tensor(item[TASK_DATA_KEY]), name)
        if image.shape[0] != 1 or not image.numel():
            raise ValueError(f"{name} takes one image that has pixels, got {tuple(image.shape)}")
        return image.float()


def _resized(image: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    if tuple(image.shape[2:]) == size:
        return image
    return functional.interpolate(image, size, mode="bilinear", align_corners=True)


@register("ResizePadTensor", "PPLResizePadTensor")
class ResizePadTensor(_ImageOperator):
    """Resizes to the largest size within `max_h` x `max_w`, and fills up to that with `pad_value`.

    The image is at the top left. The item gets `inverse_trans`, an `InverseTransform`.
    """

    settings: ClassVar[tuple[Setting, ...]] = (*MAX_SETTINGS, PAD_VALUE)

    def init(self, config: InstanceConfig) -> None:
        """Read the size and what to fill with."""
        super().init(config)
        self._most = needed_size(config, "ResizePadTensor", "max_h", "max_w")
        self._pad_value = float(config.settings["pad_value"])

    def process(self, item: Item) -> Any:
        """float32 of the shape (1, channels, max_h, max_w)."""
        image = self._image(item)
        rows, columns = image.shape[2:]
        height, width = fitted_size((rows, columns), self._most)
        item[INVERSE_KEY] = InverseTransform(columns / width, rows / height)
        border = (0, self._most[1] - width, 0, self._most[0] - height)
        resized = _resized(image, (height, width))
        return functional.pad(resized, border, value=self._pad_value) if any(border) else resized


@register("DynamicResizeTensor")
class DynamicResizeTensor(_ImageOperator):
    """Resizes each image to the size that its item names under `resize_h` and `resize_w`."""

    def process(self, item: Item) -> Any:
        """float32 of the shape (1, channels, resize_h, resize_w)."""
        return _resized(self._image(item), size_of_item(item, "DynamicResizeTensor"))
