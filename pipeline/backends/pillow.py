"""Resizing as Pillow does it, which models that were trained with torchvision have seen."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from pipeline.backends.cpu_operator import (
    RESIZE_SETTINGS,
    CpuOperator,
    byte_matrix,
    needed_size,
)
from pipeline.backends.interface import InstanceConfig, Item
from pipeline.backends.registry import register
from pipeline.errors import MissingHereError
from pipeline.language.settings import Setting


@register("PillowResizeMat")
class PillowResizeMat(CpuOperator):
    """Resizes to `resize_h` x `resize_w` pixels with Pillow's bilinear filter; takes uint8 only.

    Unlike ResizeMat's it averages all pixels that become one, so that nothing aliases where an
    image becomes smaller.
    """

    settings: ClassVar[tuple[Setting, ...]] = RESIZE_SETTINGS

    def init(self, config: InstanceConfig) -> None:
        """Read the size and load Pillow."""
        super().init(config)
        height, width = needed_size(config, "PillowResizeMat", "resize_h", "resize_w")
        self._size = (width, height)
        try:
            from PIL import Image
        except ImportError as error:
            raise MissingHereError(
                "PillowResizeMat needs the package pillow; install it with: "
                "pip install 'thriftpipe[pillow]'"
            ) from error
        self._image = Image

    def process(self, item: Item) -> Any:
        """Resize one matrix; which channel is which makes no difference."""
        image = self._image.fromarray(byte_matrix(item))
        # A copy, since Pillow's own memory may not be written to.
        return np.array(image.resize(self._size, self._image.Resampling.BILINEAR))
