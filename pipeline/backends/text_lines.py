"""CPU operators for lines of text: images of one height, whose widths follow from their own.

They follow torchpipe's, with widths computed in whole numbers, so that no rounded ratio makes an
image a pixel wider or narrower.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from interfaces.kinds import MOST_SIDE
from pipeline.backends.cpu_operator import (
    RESIZE_SETTINGS,
    CpuOperator,
    byte_matrix,
    matrix,
    needed_size,
    size_of_item,
)
from pipeline.backends.engine_settings import LARGEST_BATCH
from pipeline.backends.interface import ANY_NUMBER, InstanceConfig, Item, fail
from pipeline.backends.padding import MAX_SETTINGS, PAD_VALUE, fill_up, resize_to
from pipeline.backends.registry import register
from pipeline.errors import PipelineConfigError
from pipeline.keys import TASK_DATA_KEY, TASK_RESULT_KEY
from pipeline.language.settings import BatchShape, Setting, read_side

_RESIZE_H = RESIZE_SETTINGS[0]
_MAX_W = MAX_SETTINGS[1]
_ALIGN = Setting(
    "align",
    read_side,
    f"pixels, 1 to {MOST_SIDE}",
    32,
    help="what the common width is a multiple of",
    unit="pixels",
)


class _LineOperator(CpuOperator):
    """Resizes to a height, and fills up to a width with grey of the level `pad_value`."""

    settings: ClassVar[tuple[Setting, ...]] = (PAD_VALUE,)

    def init(self, config: InstanceConfig) -> None:
        """Read what to fill with."""
        super().init(config)
        self._pad_value = (config.settings["pad_value"],) * 3

    def _fit(self, data: np.ndarray[Any, Any], size: tuple[int, int]) -> np.ndarray[Any, Any]:
        """The image at the left of a height and width; one that would be wider is squeezed."""
        rows, columns = data.shape[:2]
        height, most_width = size
        width = min(most_width, -(-height * columns // rows))
        return fill_up(resize_to(data, (height, width)), size, (0, 0), self._pad_value)


@register("FixHResizePadMat")
class FixHResizePadMat(_LineOperator):
    """Resizes to the height `resize_h`, and fills up to the width `max_w` with `pad_value`.

    The width follows from the aspect ratio, rounded up; an image that would be wider than `max_w`
    is squeezed. The image is at the left. Takes uint8 only. Meant for lines of text.
    """

    settings: ClassVar[tuple[Setting, ...]] = (_RESIZE_H, _MAX_W, PAD_VALUE)

    def init(self, config: InstanceConfig) -> None:
        """Read the size."""
        super().init(config)
        self._size = needed_size(config, "FixHResizePadMat", "resize_h", "max_w")

    def process(self, item: Item) -> Any:
        """Resize and fill up one matrix."""
        return self._fit(byte_matrix(item), self._size)


@register("DynamicFixHResizePadMat")
class DynamicFixHResizePadMat(_LineOperator):
    """Does what FixHResizePadMat does, with the `resize_h` and `max_w` that each item names.

    `BatchFixHLimitW` puts them into the items. Takes uint8 and float32.
    """

    def process(self, item: Item) -> Any:
        """Resize and fill up one matrix."""
        size = size_of_item(item, "DynamicFixHResizePadMat", "resize_h", "max_w")
        return self._fit(matrix(item), size)


class _CommonWidth(CpuOperator):
    """Tells the items of a batch the least width at which none of them is squeezed.

    That is the width of the longest at the height `resize_h`, rounded down, and then up to a
    multiple of `align`; at most `max_w`. Of nothing but columns it is 0, as torchpipe has it.
    """

    settings: ClassVar[tuple[Setting, ...]] = (_RESIZE_H, _MAX_W, _ALIGN)
    _width_key: ClassVar[str]

    def init(self, config: InstanceConfig) -> None:
        """Read the sizes; refuse a `max_w` that is no multiple of `align`."""
        super().init(config)
        self._height, self._most_width = needed_size(
            config, type(self).__name__, "resize_h", "max_w"
        )
        self._align = config.settings["align"]
        if self._most_width % self._align:
            raise PipelineConfigError(
                f"{type(self).__name__}: max_w = {self._most_width} is no multiple of "
                f"align = {self._align}"
            )

    def forward(self, items: Sequence[Item]) -> None:
        """Put height and width into the items, and hand on their matrices."""
        fitting, width = [], 0
        for item in items:
            try:
                rows, columns = matrix(item).shape[:2]
            except (TypeError, ValueError) as error:
                fail(item, error)
                continue
            fitting.append(item)
            width = max(width, self._height * columns // rows)
        width = min(self._most_width, -(-width // self._align) * self._align)
        for item in fitting:
            item["resize_h"] = self._height
            item[self._width_key] = width
            item[TASK_RESULT_KEY] = self.process(item)

    def process(self, item: Item) -> Any:
        """The matrix as it is."""
        return item[TASK_DATA_KEY]


@register("BatchFixHLimitW")
class BatchFixHLimitW(_CommonWidth):
    """Tells up to `max` matrices of a batch the width that they need at the height `resize_h`.

    It is that of the longest, rounded up to a multiple of `align`, and at most `max_w`, which is a
    multiple, too. Each item gets it under `max_w`, and the height under `resize_h`, for
    `DynamicFixHResizePadMat`; its data is handed on. The width depends on the batch: `max` may be
    written as `BatchFixHLimitW::max`.
    """

    settings: ClassVar[tuple[Setting, ...]] = (*_CommonWidth.settings, LARGEST_BATCH)
    _width_key: ClassVar[str] = "max_w"

    def init(self, config: InstanceConfig) -> None:
        """Read how many items it takes."""
        super().init(config)
        most = config.settings["max"]
        shapes = (most,) if isinstance(most, BatchShape) else most
        self.max = max(shape.rows for shape in shapes)


@register("AlignMat")
class AlignMat(_CommonWidth):
    """Tells all matrices of a batch the width that they need at the height `resize_h`.

    It is that of the longest, rounded up to a multiple of `align`, and at most `max_w`, which is a
    multiple, too. Each item gets it under `resize_w`, and the height under `resize_h`, for
    `DynamicResizeMat`; its data is handed on.
    """

    _width_key: ClassVar[str] = "resize_w"

    def init(self, config: InstanceConfig) -> None:
        """Take as many items as there are."""
        super().init(config)
        self.max = ANY_NUMBER
