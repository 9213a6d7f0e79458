"""Image bytes to pixels, for every handler alike."""

from __future__ import annotations

import math
import os
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from service.handlers.outcomes import InvalidImageError
from service.images.cost import ImageCost, image_cost, known_cost
from service.images.decode_memory import DECODE_MEMORY
from service.images.limit import OPENCV_LIMIT_VARIABLE
from service.images.png import needful_png

# By how much a JPEG's decoder can reduce each side, and OpenCV's flag for it.
_REDUCTIONS = (
    (8, cv2.IMREAD_REDUCED_COLOR_8),
    (4, cv2.IMREAD_REDUCED_COLOR_4),
    (2, cv2.IMREAD_REDUCED_COLOR_2),
)


def decode_bgr(
    data: Any, deadline_s: float = math.inf, least_side: int = 0
) -> npt.NDArray[np.uint8]:
    """Decode JPEG, PNG or any other format of `interfaces.image_formats`.

    The memory that it takes is counted until nothing refers to the pixels any more, and where there
    is not enough, this waits: see service.images.decode_memory. Of a PNG
    with several frames it gives the default image.

    Args:
        data: the encoded image, a bytes-like object.
        deadline_s: until when it may wait for memory, on the monotonic clock.
        least_side: if not 0, a JPEG is decoded at a half, a quarter or an eighth of its size, as
            long as no side has fewer pixels than this. That takes less time, and gives other pixels
            than decoding it whole and resizing it.

    Returns:
        uint8 array of shape (height, width, 3), channels in the order B, G, R.

    Raises:
        InvalidImageError: the bytes are empty, truncated or no image, or its pixels are too many
            (see service.images.limit).
        ImageFailure: there was no memory for it.
    """
    try:
        encoded = memoryview(data).cast("B")
    except TypeError as error:
        raise InvalidImageError(
            f"expected the bytes of an encoded image, got {type(data).__name__}"
        ) from error
    if not encoded.nbytes:
        raise InvalidImageError("the image is empty: 0 bytes")
    cost = known_cost(data) or image_cost(encoded)
    if cost is None:
        raise _undecodable(encoded)
    DECODE_MEMORY.take(cost.memory_bytes, deadline_s)
    image = None
    try:
        image = _decoded(
            needful_png(encoded) if cost.format.name == "png" else encoded, _flags(cost, least_side)
        )
    finally:
        if image is None:
            DECODE_MEMORY.give_back(cost.memory_bytes)
        else:
            DECODE_MEMORY.keep_for(image, cost.memory_bytes)
    if image is None:
        raise _undecodable(encoded)
    return image


def _flags(cost: ImageCost, least_side: int) -> int:
    if least_side and cost.format.name == "jpeg":
        for divisor, flags in _REDUCTIONS:
            if min(cost.width, cost.height) >= divisor * least_side:
                return flags
    return cv2.IMREAD_COLOR


def _decoded(encoded: bytes | bytearray | memoryview, flags: int) -> npt.NDArray[np.uint8] | None:
    try:
        image = cv2.imdecode(np.frombuffer(encoded, np.uint8), flags)
    except cv2.error as error:
        if "CV_IO_MAX_IMAGE_PIXELS" in error.err:
            allowed = os.environ.get(OPENCV_LIMIT_VARIABLE, "2^30")
            raise InvalidImageError(
                f"the image has more pixels than the {allowed} that OpenCV may decode here; "
                f"--max-image-pixels and {OPENCV_LIMIT_VARIABLE} limit them"
            ) from error
        raise InvalidImageError(f"OpenCV refuses the image: {error.err}") from error
    # For the type checker only: the array is the same.
    return None if image is None else np.asarray(image, dtype=np.uint8)


def _undecodable(encoded: memoryview) -> InvalidImageError:
    return InvalidImageError(
        f"{encoded.nbytes} bytes that do not decode as an image: truncated, damaged, "
        "or a format that OpenCV does not read"
    )
