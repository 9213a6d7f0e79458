"""How an image becomes one of the size that a model takes, in requests and in calibration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy.typing as npt

from engine.errors import EngineError


@dataclass(frozen=True)
class Resizing:
    """To a height and a width, in pixels.

    Attributes:
        height: of the result.
        width: of the result.
        shorter_side: None to resize the whole image to the result's size, whatever its aspect
            ratio. Else the image keeps it: its shorter side becomes so many pixels, and the result
            is the middle of that, as most models of torchvision want it.

    Raises:
        EngineError: the result would be larger than what it is cut out of.
    """

    height: int
    width: int
    shorter_side: int | None = None

    def __post_init__(self) -> None:
        if self.shorter_side is not None and self.shorter_side < max(self.height, self.width):
            raise EngineError(
                f"resize {self.shorter_side} is less than the {self.height}x{self.width} pixels "
                f"that are cut out of the middle; usual is {round(max(self.size) / 0.875)}"
            )

    @classmethod
    def of(
        cls, size: tuple[int, int], shorter_side: int | None, crop: tuple[int, int] | None
    ) -> Resizing:
        """What `--resize` and `--crop` ask for.

        Args:
            size: height and width of the model's images, in pixels.
            shorter_side: as `--resize` says, or None.
            crop: as `--crop` says, or None for the model's size.

        Raises:
            EngineError: the model takes another size than `crop`, or a larger one than is left.
        """
        if crop is not None and crop != size:
            raise EngineError(
                f"--crop {crop[0]}x{crop[1]}: the model takes images of {size[0]}x{size[1]}, "
                f"which is what is cut out; leave --crop out"
            )
        return cls(*size, shorter_side)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the result."""
        return self.height, self.width

    @property
    def least_side(self) -> int:
        """As many pixels as a side of the image needs at least, so that none is made up."""
        return max(self.size) if self.shorter_side is None else self.shorter_side

    def __str__(self) -> str:
        """In words."""
        if self.shorter_side is None:
            return f"the whole image to {self.height}x{self.width}, whatever its aspect ratio"
        return (
            f"shorter side to {self.shorter_side}, aspect ratio kept, then the middle "
            f"{self.height}x{self.width}"
        )

    def __call__(self, image: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The result, of shape (height, width, channels): bilinear, of the image's own type.

        Args:
            image: of shape (rows, columns, channels).
        """
        if self.shorter_side is None:
            return cv2.resize(image, (self.width, self.height))
        rows, columns = image.shape[:2]
        resized = _resized(image, kept_ratio((rows, columns), self.shorter_side))
        top, left = (
            _middle(has, wanted) for has, wanted in zip(resized.shape[:2], self.size, strict=True)
        )
        return resized[top : top + self.height, left : left + self.width]


def kept_ratio(size: tuple[int, int], shorter_side: int) -> tuple[int, int]:
    """Height and width of an image once its shorter side has so many pixels.

    The longer side is rounded down, as torchvision does it.
    """
    height, width = size
    if height <= width:
        return shorter_side, shorter_side * width // height
    return shorter_side * height // width, shorter_side


def _middle(has: int, wanted: int) -> int:
    """Where the middle part begins; of two places the one that torchvision takes."""
    return round((has - wanted) / 2)


def _resized(image: npt.NDArray[Any], size: tuple[int, int]) -> npt.NDArray[Any]:
    height, width = size
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
