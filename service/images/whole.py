"""Whether encoded images have an end, which tells most damaged files without decoding them."""

from __future__ import annotations

from interfaces.image_formats import ImageFormat
from service.images.header import size_of
from service.images.jpeg import read_jpeg_header

_END_OF_JPEG, _END_OF_PNG = b"\xff\xd9", b"IEND"
_RIFF_HEADER_BYTES = 8


def why_cut_off(data: bytes, found: ImageFormat) -> str:
    """Why an image is not whole; "" where it seems to be, and for formats that do not tell.

    Args:
        data: the encoded image.
        found: its format.
    """
    if size_of(data, found) is None:
        return f"it is called {found.name} by its first bytes, and its header is damaged"
    is_cut = False
    if found.name == "jpeg":
        header = read_jpeg_header(data)
        is_cut = header is not None and data.find(_END_OF_JPEG, header.end) < 0
    elif found.name == "png":
        is_cut = data.rfind(_END_OF_PNG) < 0
    elif found.name == "webp":
        is_cut = int.from_bytes(data[4:8], "little") + _RIFF_HEADER_BYTES > len(data)
    return f"it is cut off: a {found.name} without its end" if is_cut else ""
