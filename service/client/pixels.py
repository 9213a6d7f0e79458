"""Pixels in memory, encoded without loss."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

_CHANNEL_ORDERS = ("bgr", "rgb")
# The size hardly falls with more, and the time rises a lot.
_COMPRESSION = (cv2.IMWRITE_PNG_COMPRESSION, 1)


def encode_png(pixels: Any, channel_order: str) -> bytes:
    """A PNG file with exactly these pixels.

    Args:
        pixels: uint8 array of shape (height, width, 3).
        channel_order: "bgr" or "rgb".

    Raises:
        TypeError: it is no array.
        ValueError: an array of another shape or type, or an unknown order.
    """
    if channel_order not in _CHANNEL_ORDERS:
        raise ValueError(f"channel_order must be bgr or rgb, got {channel_order!r}")
    if not isinstance(pixels, np.ndarray):
        raise TypeError(f"an image is a path, bytes or a numpy array, got {type(pixels).__name__}")
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise ValueError(
            "an array must hold uint8 in the shape (height, width, 3), "
            f"got {pixels.dtype} in {pixels.shape}"
        )
    bgr = pixels if channel_order == "bgr" else pixels[:, :, ::-1]
    return cv2.imencode(".png", np.ascontiguousarray(bgr), _COMPRESSION)[1].tobytes()
