"""How large an image is, read from its first bytes without decoding it.

The layouts are those of the formats' own documents: PNG (ISO/IEC 15948, 11.2.2), GIF89a (chapter
18), BMP (Microsoft's BITMAPCOREHEADER and BITMAPINFOHEADER), WebP (RFC 9649), TIFF 6.0 (section 2),
JPEG 2000 (ITU-T T.800, A.5.1), HEIF (ISO/IEC 23008-12, 6.5.3), and Netpbm's, Sun's and Radiance's.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable

from interfaces.image_formats import ImageFormat
from service.images.jpeg import read_jpeg_header

_BMP_CORE_HEADER_BYTES = 12
_WEBP_SIZE_BITS = 0x3FFF
# Where the formats without a fixed place for it have their size, if a usual program wrote them.
_START_BYTES = 65_536
_TIFF_WIDTH, _TIFF_HEIGHT = 256, 257
_TIFF_TYPES = {3: "H", 4: "I", 16: "Q"}
_MOST_TIFF_TAGS = 512
_HDR_SIZE = re.compile(rb"\n[-+]Y +(\d{1,9}) +[-+]X +(\d{1,9})\n")
# The magic, the width and the height, with white space and comments between them.
_PNM_SIZE = re.compile(rb"P[1-6fF](?:\s|#[^\n]*\n)+(\d{1,9})(?:\s|#[^\n]*\n)+(\d{1,9})\s")
_PAM_WIDTH = re.compile(rb"\nWIDTH +(\d{1,9})\s")
_PAM_HEIGHT = re.compile(rb"\nHEIGHT +(\d{1,9})\s")

_Size = tuple[int, int]


def size_of(data: bytes | memoryview, found: ImageFormat) -> _Size | None:
    """Width and height in pixels, or None where the header does not tell.

    It costs the same for every image, however long: a few microseconds, or some tens of them for
    formats whose headers have no fixed place.

    Args:
        data: the encoded image, or its beginning.
        found: its format.
    """
    try:
        return _READERS[found.name](data)
    except (struct.error, IndexError, OverflowError):
        # It ends within its header.
        return None


def _jpeg_size(data: bytes | memoryview) -> _Size | None:
    header = read_jpeg_header(data)
    return None if header is None else (header.width, header.height)


def _png_size(data: bytes | memoryview) -> _Size | None:
    if bytes(data[12:16]) != b"IHDR":
        return None
    return _two(">II", data, 16)


def _gif_size(data: bytes | memoryview) -> _Size:
    return _two("<HH", data, 6)


def _bmp_size(data: bytes | memoryview) -> _Size:
    """A negative height says that the rows run downwards."""
    if struct.unpack_from("<I", data, 14)[0] == _BMP_CORE_HEADER_BYTES:
        return _two("<HH", data, 18)
    width, height = _two("<ii", data, 18)
    return abs(width), abs(height)


def _webp_size(data: bytes | memoryview) -> _Size | None:
    """That of the lossy or lossless image, or of the canvas."""
    kind = bytes(data[12:16])
    if kind == b"VP8 ":
        width, height = _two("<HH", data, 26)
        return width & _WEBP_SIZE_BITS, height & _WEBP_SIZE_BITS
    if kind == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        return (bits & _WEBP_SIZE_BITS) + 1, (bits >> 14 & _WEBP_SIZE_BITS) + 1
    if kind == b"VP8X" and len(data) >= 30:
        return (
            int.from_bytes(data[24:27], "little") + 1,
            int.from_bytes(data[27:30], "little") + 1,
        )
    return None


def _tiff_size(data: bytes | memoryview) -> _Size | None:
    """From the tags of the first image."""
    order = "<" if data[0] == ord("I") else ">"
    big = struct.unpack_from(f"{order}H", data, 2)[0] == 43
    directory = struct.unpack_from(f"{order}{'Q' if big else 'I'}", data, 8 if big else 4)[0]
    count = struct.unpack_from(f"{order}{'Q' if big else 'H'}", data, directory)[0]
    start, entry_bytes, value_at = (8, 20, 12) if big else (2, 12, 8)
    found = {}
    for number in range(min(count, _MOST_TIFF_TAGS)):
        at = directory + start + number * entry_bytes
        tag, kind = struct.unpack_from(f"{order}HH", data, at)
        if tag in (_TIFF_WIDTH, _TIFF_HEIGHT) and kind in _TIFF_TYPES:
            found[tag] = struct.unpack_from(f"{order}{_TIFF_TYPES[kind]}", data, at + value_at)[0]
    if len(found) < 2:
        return None
    return found[_TIFF_WIDTH], found[_TIFF_HEIGHT]


def _avif_size(data: bytes | memoryview) -> _Size | None:
    """That of the largest of its images: thumbnails and masks have sizes of their own."""
    start = bytes(data[:_START_BYTES])
    sizes = []
    at = start.find(b"ispe")
    while at >= 0:
        sizes.append(_two(">II", start, at + 8))
        at = start.find(b"ispe", at + 4)
    return max(sizes, key=lambda size: size[0] * size[1], default=None)


def _jpeg2000_size(data: bytes | memoryview) -> _Size | None:
    """From the marker SIZ, which comes first in the code stream: the image without its offset."""
    start = bytes(data[:_START_BYTES])
    at = start.find(b"\xff\x4f\xff\x51")
    if at < 0:
        return None
    right, bottom, left, top = struct.unpack_from(">4I", start, at + 8)
    return right - left, bottom - top


def _hdr_size(data: bytes | memoryview) -> _Size | None:
    found = _HDR_SIZE.search(data, 0, _START_BYTES)
    return None if found is None else (int(found[2]), int(found[1]))


def _pnm_size(data: bytes | memoryview) -> _Size | None:
    if bytes(data[:2]) == b"P7":
        width, height = (
            pattern.search(data, 0, _START_BYTES) for pattern in (_PAM_WIDTH, _PAM_HEIGHT)
        )
        return None if width is None or height is None else (int(width[1]), int(height[1]))
    found = _PNM_SIZE.match(data, 0, _START_BYTES)
    return None if found is None else (int(found[1]), int(found[2]))


def _sunraster_size(data: bytes | memoryview) -> _Size:
    return _two(">II", data, 4)


def _two(layout: str, data: bytes | memoryview, offset: int) -> _Size:
    first, second = struct.unpack_from(layout, data, offset)
    return first, second


_READERS: dict[str, Callable[[bytes | memoryview], _Size | None]] = {
    "jpeg": _jpeg_size,
    "png": _png_size,
    "gif": _gif_size,
    "bmp": _bmp_size,
    "webp": _webp_size,
    "tiff": _tiff_size,
    "avif": _avif_size,
    "jpeg2000": _jpeg2000_size,
    "hdr": _hdr_size,
    "pnm": _pnm_size,
    "pfm": _pnm_size,
    "sunraster": _sunraster_size,
}
