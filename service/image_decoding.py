"""Image bytes to pixels, for every handler alike."""

from __future__ import annotations

import os
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from service.handler import InvalidImageError
from service.image_limit import OPENCV_LIMIT_VARIABLE


def decode_bgr(data: Any) -> npt.NDArray[np.uint8]:
    """Decode JPEG, PNG or any other format that OpenCV reads.

    Args:
        data: the encoded image, a bytes-like object.

    Returns:
        uint8 array of shape (height, width, 3), channels in the order B, G, R.

    Raises:
        InvalidImageError: the bytes are empty, truncated or no image, or its pixels are too many
            (see service.image_limit).
    """
    try:
        encoded = np.frombuffer(data, dtype=np.uint8)
    except (TypeError, ValueError) as error:
        raise InvalidImageError(
            f"expected the bytes of an encoded image, got {type(data).__name__}"
        ) from error
    if encoded.size == 0:
        raise InvalidImageError("the image is empty: 0 bytes")
    try:
        image = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    except cv2.error as error:
        if "CV_IO_MAX_IMAGE_PIXELS" in error.err:
            allowed = os.environ.get(OPENCV_LIMIT_VARIABLE, "2^30")
            raise InvalidImageError(
                f"the image has more pixels than the {allowed} that OpenCV may decode here; "
                f"--max-image-pixels and {OPENCV_LIMIT_VARIABLE} limit them"
            ) from error
        raise InvalidImageError(f"OpenCV refuses the image: {error.err}") from error
    if image is None:
        raise InvalidImageError(
            f"{encoded.size} bytes that do not decode as an image: truncated, damaged, "
            "or a format that OpenCV does not read"
        )
    return np.asarray(image, dtype=np.uint8)
