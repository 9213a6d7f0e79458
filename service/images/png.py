"""PNG (ISO/IEC 15948): its chunks, and the part of it that OpenCV is given.

OpenCV takes memory for a chunk by its announced length before it reads it: a file of 41 bytes could
ask for 2 GB. libpng inflates every text and every colour profile, of which nothing reaches the
pixels: 7.7 MB of them cost half a minute. It also inflates the pixel data to their end, beyond the
last row: 16 MB can become 16 GB. So OpenCV gets the chunks that matter, and where the data could
hold much more than the image, they are inflated here as far as the image goes and passed on
uncompressed.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct

from service.handlers.outcomes import InvalidImageError

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_LENGTH_AND_KIND = Struct(">I4s")
_HEADER = Struct(">II5B")
_HEADER_AT = len(PNG_SIGNATURE) + _LENGTH_AND_KIND.size
_CHECKSUM_BYTES = 4
# A writer's usual chunk has 8 KiB.
_FEWEST_BYTES_A_CHUNK, _CHUNKS_ANYWAY = 256, 1024
# Samples of a pixel by the type of colour: grey, RGB, palette, grey and alpha, RGB and alpha.
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
# Of the ancillary chunks it alone changes what `cv2.imdecode` gives in colour: by the orientation.
_EXIF = b"eXIf"
# As JPEG allows.
_LARGEST_EXIF_BYTES = 65_535
# The fifth bit of the first letter.
_ANCILLARY = 0x20
# Of an interlaced image: first column and row, and the steps between columns and rows.
_PASSES = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)
# The most that one byte of deflate becomes (RFC 1951: 258 bytes from 2 bits).
_HIGHEST_RATIO = 1032
# What libpng may inflate beyond the image.
_EXCESS_BYTES = 128 * 2**20
# Slower than any honest data that was found, and faster than data made to be slow, whose tables
# are used for nothing. Data that repeats bytes gives more of them, and faster.
_SLOWEST_INPUT_BYTES_PER_S, _SLOWEST_OUTPUT_BYTES_PER_S = 25e6, 300e6
_GRACE_S = 0.15
# The longest stored block of deflate.
_BLOCK_BYTES = 65_535
_INPUT_BYTES = 65_536
_CHUNK_HEAD_BYTES, _CHUNK_TAIL_BYTES = 8, 4
_NUMBER = Struct(">I")
_BLOCK_HEADER = Struct("<BHH")
_ZLIB_HEADER = b"\x78\x01"


@dataclass(frozen=True)
class Png:
    """A PNG whose chunks are as long as they say.

    Attributes:
        width: in pixels.
        height: in pixels.
        bits_per_pixel: before any expansion.
        interlaced: whether it comes in seven passes.
        kept: where the chunks that matter begin and end, in order, with those next to each other as
            one.
        pixel_data: where the content of each IDAT chunk begins and ends.
        superfluous: whether there is anything but the signature and what is kept.
    """

    width: int
    height: int
    bits_per_pixel: int
    interlaced: bool
    kept: tuple[tuple[int, int], ...]
    pixel_data: tuple[tuple[int, int], ...]
    superfluous: bool

    @property
    def compressed_bytes(self) -> int:
        """Of the pixel data, compressed."""
        return sum(end - start for start, end in self.pixel_data)

    @property
    def filtered_bytes(self) -> int:
        """Of the pixel data, decompressed: rows, each with a byte for its filter before it."""
        if not self.interlaced:
            return self.height * _row_bytes(self.width, self.bits_per_pixel)
        total = 0
        for column, row, across, down in _PASSES:
            width = (self.width - column + across - 1) // across
            height = (self.height - row + down - 1) // down
            if width > 0 and height > 0:
                total += height * _row_bytes(width, self.bits_per_pixel)
        return total


def read_png(data: bytes | memoryview) -> Png:
    """The chunks of a PNG, up to its end chunk.

    Raises:
        InvalidImageError: they are not as they say.
    """
    if data[: len(PNG_SIGNATURE)] != PNG_SIGNATURE:
        raise InvalidImageError("the PNG is damaged: it lacks its signature")
    kept: list[tuple[int, int]] = []
    pixel_data: list[tuple[int, int]] = []
    end = len(data)
    position = len(PNG_SIGNATURE)
    has_exif = False
    for _ in range(_CHUNKS_ANYWAY + end // _FEWEST_BYTES_A_CHUNK):
        start = position
        if start + _LENGTH_AND_KIND.size > end:
            raise InvalidImageError("the PNG is damaged: it ends before its last chunk")
        length, kind = _LENGTH_AND_KIND.unpack_from(data, start)
        content = start + _LENGTH_AND_KIND.size
        position = content + length + _CHECKSUM_BYTES
        if position > end:
            raise InvalidImageError(
                f"the PNG is damaged: a chunk {kind!r} of {length} bytes is announced, and the "
                "file ends before that"
            )
        if kind[0] & _ANCILLARY:
            if kind != _EXIF or has_exif or length > _LARGEST_EXIF_BYTES:
                continue
            has_exif = True
        if kind == b"IDAT":
            pixel_data.append((content, content + length))
        if kept and kept[-1][1] == start:
            kept[-1] = (kept[-1][0], position)
        else:
            kept.append((start, position))
        if kind == b"IEND":
            break
    else:
        raise InvalidImageError(
            f"the PNG is refused: its chunks have fewer than {_FEWEST_BYTES_A_CHUNK} bytes each"
        )
    return _with_header(data, kept, pixel_data)


def _with_header(
    data: bytes | memoryview, kept: list[tuple[int, int]], pixel_data: list[tuple[int, int]]
) -> Png:
    if bytes(data[12:16]) != b"IHDR":
        raise InvalidImageError("the PNG is damaged: its first chunk is not IHDR")
    width, height, depth, colour, _, _, interlaced = _HEADER.unpack_from(data, _HEADER_AT)
    if not width or not height:
        raise InvalidImageError(f"the PNG is damaged: it is {width} x {height}")
    whole = (len(PNG_SIGNATURE), len(data))
    return Png(
        width,
        height,
        depth * _SAMPLES.get(colour, 4),
        bool(interlaced),
        tuple(kept),
        tuple(pixel_data),
        superfluous=kept != [whole],
    )


def _row_bytes(width: int, bits_per_pixel: int) -> int:
    return 1 + (width * bits_per_pixel + 7) // 8


def is_stored_again(png: Png) -> bool:
    """Whether the pixel data could inflate to much more than the image."""
    return png.compressed_bytes * _HIGHEST_RATIO > png.filtered_bytes + _EXCESS_BYTES


def needful_png(data: bytes | memoryview) -> bytes | memoryview | bytearray:
    """The PNG without what cannot matter; `data` itself where it has nothing of the kind.

    Raises:
        InvalidImageError: its chunks are damaged, or its pixels take too long to inflate.
    """
    png = read_png(data)
    if is_stored_again(png):
        return _stored(data, png)
    if not png.superfluous:
        return data
    return b"".join([PNG_SIGNATURE, *(data[start:end] for start, end in png.kept)])


def _stored(data: bytes | memoryview, png: Png) -> bytearray:
    """The PNG with pixels that are not compressed."""
    first = png.pixel_data[0][0] - _CHUNK_HEAD_BYTES
    last = png.pixel_data[-1][1] + _CHUNK_TAIL_BYTES
    out = bytearray(PNG_SIGNATURE)
    for start, end in png.kept:
        out += data[start : min(end, first)]
    head, checksum, missing = _ZLIB_HEADER, 1, png.filtered_bytes
    for block in _inflated(data, png):
        missing -= len(block)
        checksum = zlib.adler32(block, checksum)
        head += _BLOCK_HEADER.pack(not missing, len(block), len(block) ^ 0xFFFF)
        tail = b"" if missing else _NUMBER.pack(checksum)
        out += _NUMBER.pack(len(head) + len(block) + len(tail))
        out += b"IDAT"
        out += head
        out += block
        out += tail
        out += _NUMBER.pack(zlib.crc32(tail, zlib.crc32(block, zlib.crc32(b"IDAT" + head))))
        head = b""
    if missing:
        # libpng would find the same, and inflate all of it once more.
        raise InvalidImageError("the PNG is damaged: its pixels end before the last row")
    for start, end in png.kept:
        out += data[max(start, last) : end]
    return out


def _inflated(data: bytes | memoryview, png: Png) -> Iterator[bytes]:
    """The filtered rows in pieces; they end early where the data are damaged."""
    # Encoders cut the data into chunks of any size: 8 KiB at a time would take a fifth longer.
    packed = memoryview(b"".join([data[start:end] for start, end in png.pixel_data]))
    missing = png.filtered_bytes
    inflating = zlib.decompressobj()
    took_s, allowed_s = 0.0, _GRACE_S
    for position in range(0, len(packed), _INPUT_BYTES):
        waiting: bytes | memoryview = packed[position : position + _INPUT_BYTES]
        allowed_s += len(waiting) / _SLOWEST_INPUT_BYTES_PER_S
        while waiting:
            started_s = time.thread_time()
            try:
                piece = inflating.decompress(waiting, min(missing, _BLOCK_BYTES))
            except zlib.error:
                return
            took_s += time.thread_time() - started_s
            allowed_s += len(piece) / _SLOWEST_OUTPUT_BYTES_PER_S
            if took_s > allowed_s:
                raise InvalidImageError(
                    "the PNG is refused: its pixels are compressed so that they take far longer to "
                    "decompress than those of any usual encoder; save it again"
                )
            if piece:
                missing -= len(piece)
                yield piece
            if not missing or inflating.eof:
                return
            waiting = inflating.unconsumed_tail
