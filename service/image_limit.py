"""Refuses images that would cost too much memory, before anybody decodes them."""

from __future__ import annotations

import os
import re
from collections.abc import MutableMapping
from typing import Any

from service.handler import InvalidImageError
from service.image_header import image_size
from service.png_chunks import false_chunk

OPENCV_LIMIT_VARIABLE = "OPENCV_IO_MAX_IMAGE_PIXELS"
_OPENCV_LEVEL_VARIABLE = "OPENCV_LOG_LEVEL"
# The texts that OpenCV accepts.
_OPENCV_COUNT = re.compile(r"(\d+)(KB|Kb|kb|MB|Mb|mb)?")


class ImageLimit:
    """How many pixels an image may have, as its header says.

    Args:
        max_pixels: the most that are allowed.
    """

    def __init__(self, max_pixels: int) -> None:
        self._max_pixels = max_pixels

    def failure(self, data: Any) -> InvalidImageError | None:
        """Why an image is refused, or None where it is not, or its header does not tell.

        Args:
            data: the encoded image.
        """
        size = image_size(data)
        if size is None:
            return None
        width, height = size
        if width * height <= self._max_pixels:
            wrong = false_chunk(data)
            return InvalidImageError(f"the PNG is damaged: {wrong}") if wrong else None
        return InvalidImageError(
            f"the image is {width} x {height}, which are {width * height} pixels; "
            f"--max-image-pixels allows {self._max_pixels}"
        )


def prepare_opencv(max_pixels: int, environment: MutableMapping[str, str] = os.environ) -> None:
    """Let OpenCV refuse larger images by itself, in any format, here and in child processes.

    Nor shall it write a line of its own for every damaged image, with which a client could flood
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
