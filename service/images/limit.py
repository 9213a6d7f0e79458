"""Refuses images that would cost too much, or are of another format, before they are decoded."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Collection, MutableMapping
from typing import Any

from interfaces.image_formats import DEFAULT_FORMATS, image_format
from service.handlers.outcomes import InvalidImageError
from service.images.cost import ImageCost, image_cost, most_work

OPENCV_LIMIT_VARIABLE = "OPENCV_IO_MAX_IMAGE_PIXELS"
_OPENCV_LEVEL_VARIABLE = "OPENCV_LOG_LEVEL"
# The texts that OpenCV accepts.
_OPENCV_COUNT = re.compile(r"(\d+)(KB|Kb|kb|MB|Mb|mb)?")


class ImageLimit:
    """Which images are decoded: their formats, and what that may cost, as their headers say.

    Args:
        max_pixels: how many pixels an image may have; what takes more work for each of them than a
            plain JPEG may have fewer, see `service.images.cost.most_work`.
        max_decoded_bytes: the most memory that there ever is for one.
        formats: names of those that are decoded.
    """

    def __init__(
        self,
        max_pixels: int,
        max_decoded_bytes: float = math.inf,
        formats: Collection[str] = DEFAULT_FORMATS,
    ) -> None:
        self._max_pixels = max_pixels
        self._most_work = most_work(max_pixels)
        self._max_decoded_bytes = max_decoded_bytes
        self._formats = formats

    def failure(self, data: Any) -> InvalidImageError | None:
        """Why an image is refused; None where it is not, or is none of a known format.

        Args:
            data: the encoded image.
        """
        try:
            self.cost(data)
        except InvalidImageError as failure:
            return failure
        return None

    def cost(self, data: Any) -> ImageCost | None:
        """What decoding it takes; None if it is of no known format.

        Args:
            data: the encoded image.

        Raises:
            InvalidImageError: it is refused.
        """
        if not isinstance(data, bytes | memoryview):
            return None
        found = image_format(data)
        if found is None:
            return None
        if found.name not in self._formats:
            raise InvalidImageError(
                f"the image is {found.name}, and --image-formats allows {', '.join(self._formats)}"
            )
        cost = image_cost(data, self._max_pixels)
        if cost is not None and (failure := self._too_costly(cost)) is not None:
            raise failure
        return cost

    def _too_costly(self, cost: ImageCost) -> InvalidImageError | None:
        if cost.work > self._most_work:
            because = f" ({cost.why})" if cost.why else ""
            return InvalidImageError(
                f"decoding this {cost.format.name} image of {cost.width} x {cost.height}{because} "
                f"takes as long as {cost.work:.0f} pixels of a plain JPEG, and no more than "
                f"{self._most_work} are allowed; --max-image-pixels raises that"
            )
        if cost.memory_bytes > self._max_decoded_bytes:
            return InvalidImageError(
                f"decoding this {cost.format.name} image of {cost.width} x {cost.height} takes "
                f"{cost.memory_bytes} bytes; --max-decoded-bytes allows {self._max_decoded_bytes} "
                "here"
            )
        return None


def prepare_opencv(max_pixels: int, environment: MutableMapping[str, str] = os.environ) -> None:
    """Let OpenCV refuse larger images by itself, in any format, here and in child processes.

    It also writes no line of its own for a damaged image any more, with which a client could flood
    the log. It reads its variables once, when `cv2` is imported, so this comes before that. A
    stricter limit that is set already stays, and so does a level.

    Args:
        max_pixels: the most that are allowed.
        environment: the processes' environment.
    """
    given = _OPENCV_COUNT.fullmatch(environment.get(OPENCV_LIMIT_VARIABLE, ""))
    if given is not None:
        unit = {"": 1, "k": 1024, "m": 1024**2}[(given[2] or "")[:1].lower()]
        max_pixels = min(max_pixels, int(given[1]) * unit)
    environment[OPENCV_LIMIT_VARIABLE] = str(max_pixels)
    environment.setdefault(_OPENCV_LEVEL_VARIABLE, "FATAL")
