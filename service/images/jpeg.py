"""What a JPEG says of itself, read without decoding it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

_START_OF_IMAGE = b"\xff\xd8"
_END_OF_IMAGE = b"\xff\xd9"
_START_OF_SCAN = 0xDA
_END_MARKER = 0xD9
# Start of frame: what kind of compression follows. C4, C8 and CC are other things.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_BASELINE, _EXTENDED, _PROGRESSIVE = 0xC0, 0xC1, 0xC2
# Markers without a length: TEM and the restart markers.
_BARE = frozenset({0x01, *range(0xD0, 0xD8)})
# Those below are reserved, but for TEM, and mean nothing to a decoder.
_LEAST_WITH_LENGTH = 0xC0
# Photographs have fewer than 300 segments, and most of these an ICC profile's; a message full of
# empty ones would keep this loop busy for seconds.
_MOST_MARKERS = 1024
# Encoders write about ten. Each has a cost of its own beside that of its pixels, for its tables.
_MOST_SCANS = 1000
# Of quantization and Huffman codes, and the restart interval.
_TABLES = frozenset({0xC4, 0xDB, 0xDD})
_MOST_TABLES = 16
# Behind the header: more than 1000 scans with tables of their own have.
_MOST_LATER_MARKERS = 8192
# Other threads may run between two pieces of a search. Encoded data have 0 or a restart marker
# behind each FF; where more than every second byte is FF, they are fill bytes, of which no
# encoder writes so many.
_PIECE_BYTES = 65_536
# Within the data of a scan 0 stands behind each FF, and restart markers are part of it.
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)


class JpegHeader(NamedTuple):
    """What a JPEG says of its pixels before they are decoded.

    Attributes:
        marker: the second byte of its marker, which says how the data are compressed.
        precision: bits of a sample.
        height: in pixels.
        width: in pixels.
        samples: of each component: its identifier, which need not be its own alone, and how many
            samples it has for one pixel.
        complete: whether the data ends with the end marker.
        end: where the next segment begins.
    """

    marker: int
    precision: int
    height: int
    width: int
    samples: tuple[tuple[int, float], ...]
    complete: bool
    end: int

    @property
    def components(self) -> int:
        """1 for grey, 3 for colour, 4 for CMYK."""
        return len(self.samples)

    @property
    def baseline(self) -> bool:
        """Whether it is sequential, Huffman-coded, 8 bits: what hardware decodes."""
        return self.marker == _BASELINE and self.precision == 8

    @property
    def progressive(self) -> bool:
        """Whether each of its scans adds to all that came before."""
        return self.marker == _PROGRESSIVE

    @property
    def common(self) -> bool:
        """Whether it is Huffman-coded and lossy, as those of cameras and on the web are."""
        return self.marker in (_BASELINE, _EXTENDED, _PROGRESSIVE)


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
            return _frame_header(data, position)
        if marker == _START_OF_SCAN:
            return None
        position += 2 + (data[position + 2] << 8 | data[position + 3])
    return None


def scanned_samples(data: bytes | memoryview, header: JpegHeader) -> float:
    """How many samples of each pixel the scans go through, all of them together.

    A decoder goes through an image that has several scans once for each. As many bytes are looked
    at as the file has, by a search for markers.

    Returns:
        0 for one scan with all components, which needs no memory for coefficients; infinity for
        more than 1000 scans or 8192 markers, for 64 KiB of fill bytes, or for damaged ones.
    """
    if _is_plain(data, header):
        return 0.0
    try:
        return _scanned_samples(data, header)
    except _EndlessFillError:
        return float("inf")


class _EndlessFillError(Exception):
    """A search for the next marker is a search through fill bytes."""


def _is_plain(data: bytes | memoryview, header: JpegHeader) -> bool:
    """Whether only tables stand before a scan with all components: what most files have."""
    position, end = header.end, len(data) - 5
    if header.progressive:
        return False
    for _ in range(_MOST_TABLES):
        if position > end or data[position] != 0xFF:
            return False
        marker = data[position + 1]
        if marker == _START_OF_SCAN:
            components = bytes(data[position + 5 : position + 5 + 2 * data[position + 4] : 2])
            return len(set(components)) == header.components
        length = data[position + 2] << 8 | data[position + 3]
        if marker not in _TABLES or length < 2:
            return False
        position += 2 + length
    return False


def _scanned_samples(data: bytes | memoryview, header: JpegHeader) -> float:
    of_identifier: dict[int, float] = {}
    for identifier, samples in header.samples:
        of_identifier[identifier] = max(samples, of_identifier.get(identifier, 0.0))
    total, scans = 0.0, 0
    for count, components in enumerate(_markers(data, header.end)):
        if count >= _MOST_LATER_MARKERS:
            return float("inf")
        if components is None:
            continue
        if scans == 0 and not header.progressive and len(set(components)) == header.components:
            return 0.0
        scans += 1
        if scans > _MOST_SCANS:
            return float("inf")
        total += sum(of_identifier.get(component, 1.0) for component in components)
    return total


def _frame_header(data: bytes | memoryview, position: int) -> JpegHeader | None:
    """The frame header whose marker is at `position`, or None if it is cut short or false."""
    if position + 10 > len(data):
        return None
    length = int.from_bytes(data[position + 2 : position + 4], "big")
    count = data[position + 9]
    parts = data[position + 10 : position + 10 + 3 * count]
    if len(parts) < 3 * count:
        return None
    return JpegHeader(
        marker=data[position + 1],
        precision=data[position + 4],
        height=data[position + 5] << 8 | data[position + 6],
        width=data[position + 7] << 8 | data[position + 8],
        samples=_samples(bytes(parts)),
        complete=data[-2:] == _END_OF_IMAGE,
        end=position + 2 + length,
    )


# Of all images that a camera or a program writes, it is the same.
@lru_cache(256)
def _samples(parts: bytes) -> tuple[tuple[int, float], ...]:
    """The identifier of each component and its samples for one pixel, by three bytes of each."""
    factors = [(factor >> 4, factor & 15) for factor in parts[1::3]]
    across = max((factor[0] for factor in factors), default=1)
    down = max((factor[1] for factor in factors), default=1)
    largest = max(1, across * down)
    return tuple(
        (identifier, factor[0] * factor[1] / largest)
        for identifier, factor in zip(parts[::3], factors, strict=True)
    )


def _next_marker(data: bytes | memoryview, position: int) -> int | None:
    while position < len(data):
        end = position + _PIECE_BYTES
        # With the second byte of a marker that begins in the piece's last.
        if (found := _MARKER.search(data, position, end + 1)) is not None:
            return found.start()
        if 2 * bytes(data[position:end]).count(b"\xff") > _PIECE_BYTES:
            raise _EndlessFillError
        position = end
    return None


def _markers(data: bytes | memoryview, position: int) -> Iterator[bytes | None]:
    """All markers up to the end marker or that of the data.

    Yields:
        For the start of a scan the identifiers of its components, for another marker None.
    """
    while (start := _next_marker(data, position)) is not None:
        marker = data[start + 1]
        if marker == _END_MARKER:
            return
        if marker < _LEAST_WITH_LENGTH:
            # A decoder that looks for a restart marker passes over this one and nothing else.
            position = start + 2
            yield None
            continue
        length = int.from_bytes(data[start + 2 : start + 4], "big")
        position = start + 2 + max(2, length)
        if marker == _START_OF_SCAN:
            count = data[start + 4] if start + 4 < len(data) else 0
            yield bytes(data[start + 5 : start + 5 + 2 * count : 2])
        else:
            yield None
