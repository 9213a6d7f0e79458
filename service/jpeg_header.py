"""What a JPEG's header says of it, read without decoding."""

from __future__ import annotations

from dataclasses import dataclass

_START_OF_IMAGE = b"\xff\xd8"
_END_OF_IMAGE = b"\xff\xd9"
_START_OF_SCAN = 0xDA
# Start of frame: what kind of compression follows. C4, C8 and CC are other things.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_BASELINE = 0xC0
# Markers without a length: TEM and the restart markers.
_BARE = frozenset({0x01, *range(0xD0, 0xD8)})
# Photographs have fewer than 300 segments, and most of these an ICC profile's; a message full of
# empty ones would keep this loop busy for seconds.
_MOST_MARKERS = 1024


@dataclass(frozen=True)
class JpegHeader:
    """The frame header of a JPEG.

    Attributes:
        baseline: sequential, Huffman-coded, 8 bits: what decoding engines in hardware take.
        height: in pixels.
        width: in pixels.
        components: 1 for grey, 3 for colour, 4 for CMYK.
        complete: whether the data ends with the end marker.
    """

    baseline: bool
    height: int
    width: int
    components: int
    complete: bool


def read_jpeg_header(data: bytes | memoryview) -> JpegHeader | None:
    """The header, or None if `data` is no JPEG or its header is damaged (ITU-T T.81, annex B).

    A header behind more than 1024 markers and fill bytes is not looked for either.
    """
    if data[:2] != _START_OF_IMAGE:
        return None
    position, end = 2, len(data)
    for _ in range(_MOST_MARKERS):
        if position + 4 > end or data[position] != 0xFF:
            return None
        marker = data[position + 1]
        if marker == 0xFF or marker in _BARE:
            position += 1 if marker == 0xFF else 2
            continue
        if marker in _FRAMES:
            if position + 10 > end:
                return None
            return JpegHeader(
                baseline=marker == _BASELINE and data[position + 4] == 8,
                height=int.from_bytes(data[position + 5 : position + 7], "big"),
                width=int.from_bytes(data[position + 7 : position + 9], "big"),
                components=data[position + 9],
                complete=data[-2:] == _END_OF_IMAGE,
            )
        if marker == _START_OF_SCAN:
            return None
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return None
