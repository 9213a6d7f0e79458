"""Pixels in memory, encoded without loss.

Neither NumPy nor Pillow is needed: an array or image of theirs is a sign that they are loaded.
"""

from __future__ import annotations

import io
import sys
import zlib
from struct import pack
from typing import TYPE_CHECKING, TypeGuard

from service.client.errors import InvalidImageError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL.Image import Image as PillowImage

_CHANNEL_ORDERS = ("bgr", "rgb")
# The size hardly falls with more, and the time rises a lot.
_COMPRESSION = 1
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_BITS, _RGB = 8, 2
# Each row is stored as its difference to the one above.
_UP = 2
# Those of Pillow's modes whose channels have 8 bits, or 1.
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV")


def is_array(image: object) -> TypeGuard[npt.NDArray[np.uint8]]:
    """Whether it is a NumPy array."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(image, numpy.ndarray)


def is_pillow_image(image: object) -> TypeGuard[PillowImage]:
    """Whether it is an image of Pillow's."""
    pillow = sys.modules.get("PIL.Image")
    return pillow is not None and isinstance(image, pillow.Image)


def encode_array(pixels: npt.NDArray[np.uint8], channel_order: str) -> bytes:
    """A PNG file with exactly these pixels.

    Args:
        pixels: uint8 array of shape (height, width, 3).
        channel_order: "bgr" or "rgb".

    Raises:
        ValueError: an array of another shape or type, or an unknown order.
    """
    import numpy as np

    if channel_order not in _CHANNEL_ORDERS:
        raise ValueError(f"channel_order must be bgr or rgb, got {channel_order!r}")
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise ValueError(
            "an array must hold uint8 in the shape (height, width, 3), "
            f"got {pixels.dtype} in {pixels.shape}"
        )
    height, width, _ = pixels.shape
    rgb = pixels if channel_order == "rgb" else pixels[:, :, ::-1]
    rows = np.ascontiguousarray(rgb).reshape(height, width * 3)
    lines = np.empty((height, 1 + width * 3), np.uint8)
    lines[:, 0] = _UP
    lines[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=lines[1:, 1:])
    header = pack(">IIBBBBB", width, height, _BITS, _RGB, 0, 0, 0)
    body = zlib.compress(lines.data, _COMPRESSION)
    chunks = ((b"IHDR", header), (b"IDAT", body), (b"IEND", b""))
    return _PNG_SIGNATURE + b"".join(_chunk(kind, data) for kind, data in chunks)


def encode_pillow_image(image: PillowImage) -> bytes:
    """A PNG file with an image's pixels as they are: neither turned by EXIF nor corrected.

    Raises:
        InvalidImageError: its file, which Pillow reads only now, is damaged.
        ValueError: its pixels have more than 8 bits a channel, or it has none.
    """
    if image.mode not in _MODES or 0 in image.size:
        raise ValueError(
            f"a Pillow image must have pixels of 8 bits a channel, got mode {image.mode!r} in "
            f"{image.size}; image.convert('RGB') makes them, after a scaling of your own"
        )
    try:
        rgb = image.convert("RGB")
    except (OSError, SyntaxError) as error:
        raise InvalidImageError(f"Pillow cannot read the image: {error}") from error
    # EXIF's orientation would turn the image in the server.
    rgb.info.clear()
    file = io.BytesIO()
    rgb.save(file, "PNG", compress_level=_COMPRESSION, exif=b"")
    return file.getvalue()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return pack(">I", len(data)) + kind + data + pack(">I", zlib.crc32(kind + data))
