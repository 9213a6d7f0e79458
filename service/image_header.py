"""How large an image is, read from its first bytes without decoding it.

The layouts are those of the formats' own documents: PNG (ISO/IEC 15948, 11.2.2), GIF89a (chapter
18), BMP (Microsoft's BITMAPCOREHEADER and BITMAPINFOHEADER) and WebP (RFC 9649). Others are left
to whoever decodes them.
"""

from __future__ import annotations

import struct
from typing import Any

from service.jpeg_header import read_jpeg_header
from service.png_chunks import PNG_SIGNATURE

_JPEG = b"\xff\xd8"
_GIFS = (b"GIF87a", b"GIF89a")
_BMP_CORE_HEADER_BYTES = 12
_WEBP_SIZE_BITS = 0x3FFF
# Long enough for the sizes of all formats but JPEG, whose header has no fixed place.
_START_BYTES = 32


def image_size(data: Any) -> tuple[int, int] | None:
    """Width and height in pixels, or None where the header does not tell or is not known.

    It costs the same for every image, however long: a few microseconds.

    Args:
        data: the encoded image; what is neither bytes nor a memoryview has no size.
    """
    if not isinstance(data, bytes | memoryview):
        return None
    if data[:2] == _JPEG:
        header = read_jpeg_header(data)
        return None if header is None else (header.width, header.height)
    start = bytes(data[:_START_BYTES])
    try:
        if start.startswith(PNG_SIGNATURE) and start[12:16] == b"IHDR":
            width, height = struct.unpack_from(">II", start, 16)
        elif start.startswith(_GIFS):
            width, height = struct.unpack_from("<HH", start, 6)
        elif start.startswith(b"BM"):
            width, height = _bmp_size(start)
        elif start.startswith(b"RIFF") and start[8:12] == b"WEBP":
            return _webp_size(start)
        else:
            return None
    except struct.error:
        # It ends within its header.
        return None
    return width, height


def _bmp_size(start: bytes) -> tuple[int, int]:
    """A negative height says that the rows run downwards."""
    if struct.unpack_from("<I", start, 14)[0] == _BMP_CORE_HEADER_BYTES:
        width, height = struct.unpack_from("<HH", start, 18)
    else:
        width, height = struct.unpack_from("<ii", start, 18)
    return abs(width), abs(height)


def _webp_size(start: bytes) -> tuple[int, int] | None:
    """That of the lossy or lossless image, or of the canvas."""
    kind = start[12:16]
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", start, 26)
        return width & _WEBP_SIZE_BITS, height & _WEBP_SIZE_BITS
    if kind == b"VP8L":
        bits = struct.unpack_from("<I", start, 21)[0]
        return (bits & _WEBP_SIZE_BITS) + 1, (bits >> 14 & _WEBP_SIZE_BITS) + 1
    if kind == b"VP8X" and len(start) >= 30:
        return (
            int.from_bytes(start[24:27], "little") + 1,
            int.from_bytes(start[27:30], "little") + 1,
        )
    return None
