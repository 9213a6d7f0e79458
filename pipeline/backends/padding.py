"""CPU operators that resize a matrix without changing its aspect ratio, and fill up the rest.

All resize bilinearly. They follow torchpipe's in what they take and give, with two differences:
sizes are computed in whole numbers, so that no rounded ratio makes a side a pixel longer or
shorter, and a side has at least one pixel, so that very long images have a result.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import cv2
import numpy as np

from interfaces.kinds import MOST_SIDE
from pipeline.backends.cpu_operator import (
    RESIZE_SETTINGS,
    CpuOperator,
    byte_matrix,
    matrix,
    needed_size,
)
from pipeline.backends.interface import InstanceConfig, Item
from pipeline.backends.registry import register
from pipeline.keys import TASK_DATA_KEY
from pipeline.language.settings import Setting, read_byte, read_side

SCALE_KEY = "scale"
OFFSET_KEY = "offset"
INVERSE_KEY = "inverse_trans"

MAX_SETTINGS = (
    Setting(
        "max_h",
        read_side,
        f"a height in pixels, 1 to {MOST_SIDE}",
        help="the greatest height",
        unit="pixels",
        example=640,
    ),
    Setting(
        "max_w",
        read_side,
        f"a width in pixels, 1 to {MOST_SIDE}",
        help="the greatest width",
        unit="pixels",
        example=640,
    ),
)


PAD_VALUE = Setting("pad_value", read_byte, "a grey level, 0 to 255", 0, help="what fills the rest")


def read_levels(value: Any) -> tuple[int, int, int]:
    """A level from 0 to 255 for each channel, or one for all: 114, "114", "103,116,123"."""
    parts = value.split(",") if isinstance(value, str) else value
    levels = [read_byte(part) for part in (parts if isinstance(parts, list) else [parts])]
    first, second, third = levels * 3 if len(levels) == 1 else levels
    return first, second, third


_LETTER_BOX_SETTINGS = (
    *RESIZE_SETTINGS,
    Setting(
        "pad_val",
        read_levels,
        'a level from 0 to 255, or three: "103,116,123"',
        (0, 0, 0),
        help="what fills the rest",
    ),
)


@dataclass(frozen=True)
class InverseTransform:
    """Takes points of a resized image back to the image that it was made of.

    Attributes:
        x_ratio: width of that image by width of the resized one.
        y_ratio: the same of the heights.
        offset: pixels left of and above the resized one.
        size: width and height of that image in pixels, beyond which no point is put; None for no
            bound.
    """

    x_ratio: float
    y_ratio: float
    offset: tuple[int, int] = (0, 0)
    size: tuple[int, int] | None = None

    def __call__(self, x: float, y: float) -> tuple[float, float]:
        """The point in the image's own pixels."""
        x, y = self.x_ratio * (x - self.offset[0]), self.y_ratio * (y - self.offset[1])
        if self.size is None:
            return x, y
        return min(max(x, 0), self.size[0] - 1), min(max(y, 0), self.size[1] - 1)


def fitted_size(
    shape: tuple[int, int], most: tuple[int, int], *, up: bool = False
) -> tuple[int, int]:
    """The largest size of an image's aspect ratio within a box; the image may become larger.

    Args:
        shape: height and width of the image in pixels.
        most: those of the box.
        up: round the shorter side up instead of to the nearest pixel.

    Returns:
        Height and width in pixels, at least 1; one of them is the box's.
    """
    (height, width), (most_height, most_width) = shape, most
    if most_width * height <= most_height * width:
        return _quotient(most_width * height, width, up=up), most_width
    return most_height, _quotient(most_height * width, height, up=up)


def _quotient(dividend: int, divisor: int, *, up: bool) -> int:
    if up:
        return -(-dividend // divisor)
    return max(1, (2 * dividend + divisor) // (2 * divisor))


def resize_to(data: np.ndarray[Any, Any], size: tuple[int, int]) -> np.ndarray[Any, Any]:
    """A matrix, resized to a height and width in pixels."""
    height, width = size
    return np.asarray(cv2.resize(data, (width, height), interpolation=cv2.INTER_LINEAR))


class LetterBox(CpuOperator):
    """Fits a matrix into `resize_h` x `resize_w` pixels and fills up the rest with `pad_val`.

    `pad_val` has one level for all channels, or one each in the matrix's own order. The item gets
    `scale`, a float, and `offset`, the pixels left of and above the image: a point (x, y) of the
    result is ((x - offset[0]) / scale, (y - offset[1]) / scale) of what came in.
    """

    settings: ClassVar[tuple[Setting, ...]] = _LETTER_BOX_SETTINGS
    _centred: ClassVar[bool]

    def init(self, config: InstanceConfig) -> None:
        """Read the size and what to fill with."""
        super().init(config)
        self._size = needed_size(config, type(self).__name__, "resize_h", "resize_w")
        self._pad_val = config.settings["pad_val"]

    def process(self, item: Item) -> Any:
        """Resize and fill up one matrix."""
        data = matrix(item)
        rows, columns = data.shape[:2]
        target_height, target_width = self._size
        height, width = fitted_size((rows, columns), self._size)
        resized = resize_to(data, (height, width))
        left, above = _border(resized, self._size, centred=self._centred)
        boxed = fill_up(resized, self._size, (left, above), self._pad_val)
        item[SCALE_KEY] = min(target_width / columns, target_height / rows)
        item[OFFSET_KEY] = (left, above)
        return boxed


@register("LetterBoxMat")
class LetterBoxMat(LetterBox):
    """Fits a matrix into `resize_h` x `resize_w` pixels, in the middle; `pad_val` fills the rest.

    The item gets `scale` and `offset`, the pixels left of and above the image: a point (x, y) of
    the result is ((x - offset[0]) / scale, (y - offset[1]) / scale) of what came in.
    """

    _centred: ClassVar[bool] = True


@register("TopLeftResizeMat")
class TopLeftResizeMat(LetterBox):
    """Fits a matrix into `resize_h` x `resize_w` pixels, at the top left; `pad_val` fills the rest.

    The item gets `scale`, and the `offset` (0, 0): a point (x, y) of the result is
    (x / scale, y / scale) of what came in.
    """

    _centred: ClassVar[bool] = False


class _WithinMax(CpuOperator):
    """Fits a matrix into `max_h` x `max_w` pixels; the item gets `inverse_trans`."""

    settings: ClassVar[tuple[Setting, ...]] = MAX_SETTINGS

    def init(self, config: InstanceConfig) -> None:
        """Read the size."""
        super().init(config)
        self._most = needed_size(config, type(self).__name__, "max_h", "max_w")

    def _fit(self, item: Item, data: np.ndarray[Any, Any], *, up: bool) -> np.ndarray[Any, Any]:
        rows, columns = data.shape[:2]
        height, width = fitted_size((rows, columns), self._most, up=up)
        resized = data if (height, width) == (rows, columns) else resize_to(data, (height, width))
        item[INVERSE_KEY] = InverseTransform(columns / width, rows / height)
        return resized


@register("FixRatioResizeMat")
class FixRatioResizeMat(_WithinMax):
    """Resizes to the largest size within `max_h` x `max_w`; the shorter side is rounded up.

    The item gets `inverse_trans`, an `InverseTransform`.
    """

    def process(self, item: Item) -> Any:
        """Resize one matrix; one that has the size is handed on."""
        return self._fit(item, matrix(item), up=True)


class _PaddedToMax(_WithinMax):
    """Fills up to `max_h` x `max_w` with grey of the level `pad_value`; takes uint8 only."""

    settings: ClassVar[tuple[Setting, ...]] = (*MAX_SETTINGS, PAD_VALUE)
    _centred: ClassVar[bool]

    def init(self, config: InstanceConfig) -> None:
        """Read the size and what to fill with."""
        super().init(config)
        self._pad_value = config.settings["pad_value"]

    def process(self, item: Item) -> Any:
        """Resize and fill up one matrix; one that has the size is handed on."""
        resized = self._fit(item, byte_matrix(item), up=False)
        left, above = _border(resized, self._most, centred=self._centred)
        if self._centred:
            rows, columns = item[TASK_DATA_KEY].shape[:2]
            back = item[INVERSE_KEY]
            item[INVERSE_KEY] = replace(back, offset=(left, above), size=(columns, rows))
        return fill_up(resized, self._most, (left, above), (self._pad_value,) * 3)


@register("ResizePadMat")
class ResizePadMat(_PaddedToMax):
    """Resizes to the largest size within `max_h` x `max_w`, and fills up to that.

    The image is at the top left, and the rest is grey of the level `pad_value`. Takes uint8 only.
    The item gets `inverse_trans`, an `InverseTransform`.
    """

    _centred: ClassVar[bool] = False


@register("ResizeCenterPadMat")
class ResizeCenterPadMat(_PaddedToMax):
    """Does what ResizePadMat does, with the image in the middle.

    `inverse_trans` takes a point beside the image to the image's edge.
    """

    _centred: ClassVar[bool] = True


def _border(
    image: np.ndarray[Any, Any], size: tuple[int, int], *, centred: bool
) -> tuple[int, int]:
    """The pixels left of and above an image that is filled up to a height and width."""
    if not centred:
        return 0, 0
    return (size[1] - image.shape[1]) // 2, (size[0] - image.shape[0]) // 2


def fill_up(
    image: np.ndarray[Any, Any],
    size: tuple[int, int],
    offset: tuple[int, int],
    levels: tuple[int, int, int],
) -> np.ndarray[Any, Any]:
    """An image filled up to a height and width; one that has the size as it is."""
    left, above = offset
    below, right = size[0] - image.shape[0] - above, size[1] - image.shape[1] - left
    if not any((left, above, below, right)):
        return image
    return np.asarray(
        cv2.copyMakeBorder(image, above, below, left, right, cv2.BORDER_CONSTANT, value=levels)
    )
