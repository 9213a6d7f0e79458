"""What of a WebP a decoder may work on, whatever its chunks say (RFC 9649, chapter 2).

Chunks may be nested, doubled, of false length, or such as a decoder passes over. So none is
followed: whatever looks like a picture or an alpha channel, anywhere in the file, counts as one.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from service.handlers.outcomes import InvalidImageError

_CHUNK_HEADER_BYTES = 8
_EXTENDED_AT, _FLAGS_AT = 12, 20
_FLAG_ALPHA, _FLAG_ANIMATED = 0x10, 0x02
# Of a lossless image: its signature and sizes. Of a lossy one: where its start code and sizes are.
_LOSSLESS_SIGNATURE, _LOSSLESS_HEADER_BYTES = 0x2F, 5
_START_CODE, _START_CODE_AT, _LOSSY_HEADER_BYTES = b"\x9d\x01\x2a", 3, 10
_ALPHA_METHOD, _ALPHA_LOSSLESS = 0x03, 1
_SIDE_BITS = 14
_MOST_SIDE = (1 << _SIDE_BITS) - 1
# Frames of an animation.
_MOST_PICTURES = 4096


@dataclass(frozen=True)
class Lossless:
    """A lossless stream: a picture, or the alpha channel of a lossy one.

    Attributes:
        start: where its transforms begin in the file.
        width: in pixels.
        height: in pixels.
    """

    start: int
    width: int
    height: int


@dataclass(frozen=True)
class Webp:
    """What may be decoded of it.

    Attributes:
        animated: whether it is decoded as the first of several pictures.
        alpha: whether there is an alpha channel, by its flags or by what it has.
        lossless: the lossless pictures.
        lossy_sizes: width and height of the lossy pictures, in pixels.
        alpha_starts: where lossless alpha channels begin.
    """

    animated: bool
    alpha: bool
    lossless: tuple[Lossless, ...]
    lossy_sizes: frozenset[tuple[int, int]]
    alpha_starts: tuple[int, ...]

    def streams(self) -> Iterator[Lossless]:
        """All that may be lossless: an alpha channel may belong to any lossy picture."""
        yield from self.lossless
        for start, size in product(self.alpha_starts, self.lossy_sizes):
            yield Lossless(start, *size)


def read_webp(data: bytes) -> Webp:
    """Search for pictures and alpha channels; it takes as long as a few searches for a word.

    Raises:
        InvalidImageError: there is no picture, or there are too many.
    """
    alpha, lossless = False, []
    for at in _contents(data, b"VP8L"):
        if at + _LOSSLESS_HEADER_BYTES <= len(data) and data[at] == _LOSSLESS_SIGNATURE:
            bits = struct.unpack_from("<I", data, at + 1)[0]
            width, height = bits & _MOST_SIDE, bits >> _SIDE_BITS & _MOST_SIDE
            lossless.append(Lossless(at + _LOSSLESS_HEADER_BYTES, width + 1, height + 1))
            alpha = alpha or bool(bits >> 2 * _SIDE_BITS & 1)
    sizes = set()
    for at in _contents(data, b"VP8 "):
        if at + _LOSSY_HEADER_BYTES <= len(data) and data.startswith(
            _START_CODE, at + _START_CODE_AT
        ):
            width, height = struct.unpack_from("<HH", data, at + 6)
            sizes.add((width & _MOST_SIDE, height & _MOST_SIDE))
    if not lossless and not sizes:
        raise InvalidImageError("the webp image is damaged: it ends before its first picture")
    alpha_starts = []
    for at in _contents(data, b"ALPH"):
        size = int.from_bytes(data[at - 4 : at], "little")
        # A decoder has to pass over it to reach the picture. Four letters among compressed bytes
        # have hardly ever a length that allows for that.
        if size and at + size <= len(data):
            alpha = True
            if data[at] & _ALPHA_METHOD == _ALPHA_LOSSLESS:
                alpha_starts.append(at + 1)
    extended = data.startswith(b"VP8X", _EXTENDED_AT) and len(data) > _FLAGS_AT
    flags = data[_FLAGS_AT] if extended else 0
    return Webp(
        bool(flags & _FLAG_ANIMATED),
        alpha or bool(flags & _FLAG_ALPHA),
        tuple(lossless),
        frozenset(sizes),
        tuple(alpha_starts),
    )


def _contents(data: bytes, kind: bytes) -> Iterator[int]:
    """Where the content of each chunk of a kind begins, if it were one."""
    at = data.find(kind)
    for _ in range(_MOST_PICTURES):
        if at < 0:
            return
        yield at + _CHUNK_HEADER_BYTES
        at = data.find(kind, at + len(kind))
    raise InvalidImageError(
        f"the webp image has more than {_MOST_PICTURES} pictures; save its first one"
    )
