"""The costliest images of each format that the limits let through, and what decoding them costs.

`python -m tests.service.images.image_costs` prints the table of `results/image-costs`.
"""

from __future__ import annotations

import csv
import io
import json
import struct
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from service.images.cost import image_cost

# What the costs are measured beside: 4 million pixels of the costliest plain JPEG.
REFERENCE_SIDE = 2000
# Its CPU time on the machine that the goal of one second was set on, an Intel Xeon of 2023.
REFERENCE_S = 0.031
_EXIF_TURNED = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"

_MEASURE = """
import json, os, resource, sys
from pathlib import Path
from service.images.decoding import decode_bgr
from interfaces.image_formats import FORMATS
from service.images.limit import ImageLimit
from service.handlers.outcomes import InvalidImageError

def status(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))

def cpu_s():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime

def outcome(data):
    failure = ImageLimit(51_000_000, 2**30, tuple(FORMATS)).failure(data)
    if failure is None:
        try:
            return list(decode_bgr(data).shape)
        except InvalidImageError as error:
            failure = error
    return str(failure)

def measure(path):
    data = path.read_bytes()
    # So that libraries' pages are in memory in this process, too.
    outcome(reference)
    before_bytes, began_s = status("VmRSS"), cpu_s()
    # From here on, and not for what the references took.
    Path("/proc/self/clear_refs").write_text("5")
    result = outcome(data)
    print(json.dumps({
        "cpu_s": cpu_s() - began_s,
        "memory_bytes": status("VmHWM") - before_bytes,
        "reference_s": min(references),
        "outcome": result,
    }), flush=True)

reference = Path(sys.argv[1]).read_bytes()
outcome(reference)
references = []
for _ in range(3):
    began_s = cpu_s()
    outcome(reference)
    references.append(cpu_s() - began_s)
for line in sys.stdin:
    if not (pid := os.fork()):
        measure(Path(line.rstrip()))
        os._exit(0)
    os.waitpid(pid, 0)
"""


class Measuring:
    """What one image costs, each in a process of its own, forked where all is imported already."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        reference = Path(self._folder.name, "reference")
        reference.write_bytes(plain_jpeg(REFERENCE_SIDE))
        self._process = subprocess.Popen(
            [sys.executable, "-c", _MEASURE, str(reference)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Measuring:
        return self

    def __exit__(self, *exception: object) -> None:
        with self._folder, self._process:
            self._process.kill()

    def measure(self, data: bytes) -> dict[str, Any]:
        """CPU seconds and peak memory of one image, from the limits to the pixels.

        Returns:
            cpu_s, memory_bytes, outcome (the shape, or why it was refused), and reference_s, the
            CPU time of the reference in the process that was forked.
        """
        path = Path(self._folder.name, "image")
        path.write_bytes(data)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{path}\n")
        self._process.stdin.flush()
        found: dict[str, Any] = json.loads(self._process.stdout.readline())
        return found


@cache
def _pixels(side: int) -> np.ndarray[Any, Any]:
    """Soft colours, so that every block has some coefficients, with some noise."""
    random = np.random.default_rng(0)
    few = random.integers(0, 256, (side // 64 + 1, side // 64 + 1, 3), dtype=np.uint8)
    return cv2.resize(few, (side, side), interpolation=cv2.INTER_CUBIC)


def _encoded(suffix: str, pixels: np.ndarray[Any, Any], *flags: int) -> bytes:
    return cv2.imencode(suffix, pixels, flags)[1].tobytes()


@cache
def plain_jpeg(side: int, progressive: int = 0) -> bytes:
    """Without subsampling: as many samples as there can be."""
    sampling = (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)
    return _encoded(".jpg", _pixels(side), *sampling, cv2.IMWRITE_JPEG_PROGRESSIVE, progressive)


def _turned_jpeg(side: int) -> bytes:
    exif = b"Exif\0\0" + _EXIF_TURNED
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    data = plain_jpeg(side)
    return data[:2] + segment + data[2:]


def _one_scan_of_three(side: int) -> bytes:
    """Three components of the same name, and a scan of the first one's first pixels only."""
    whole = plain_jpeg(8)
    tables = whole[2 : whole.index(b"\xff\xc0")]
    after_frame = whole.index(b"\xff\xc0") + 19
    codes = whole[after_frame : whole.index(b"\xff\xda")]
    frame = struct.pack(">2sHBHHB", b"\xff\xc0", 17, 8, side, side, 3) + b"\x01\x11\x00" * 3
    scan = b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00\x00"
    return b"\xff\xd8" + tables + frame + codes + scan + b"\xff\xd9"


def _many_scans(side: int, again: int) -> bytes:
    """The last scan of a progressive JPEG some hundred times: few bytes, and all samples."""
    data = plain_jpeg(side, 1)
    last = data.rindex(b"\xff\xda")
    # A block of ends of bands is all that a scan without changes needs.
    return data[:-2] + data[last:-2] * again + data[-2:]


def chunk(kind: bytes, content: bytes) -> bytes:
    """One chunk of a PNG."""
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


def png(
    width: int,
    height: int,
    depth: int,
    colour: int,
    pixel_data: bytes,
    *,
    interlaced: bool = False,
    before: bytes = b"",
    after: bytes = b"",
) -> bytes:
    """A PNG of given pixel data, already compressed, in one chunk."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            before,
            chunk(b"IDAT", pixel_data),
            after,
            chunk(b"IEND", b""),
        ]
    )


def _rows(side: int, bits: int, filter_type: int) -> bytes:
    """Rows that differ from byte to byte, yet compress well."""
    row_bytes = (side * bits + 7) // 8
    period = np.random.default_rng(0).integers(0, 256, 97, dtype=np.uint8).tobytes()
    row = bytes([filter_type]) + (period * (row_bytes // 97 + 1))[:row_bytes]
    return row * side


def _paeth_png(side: int) -> bytes:
    return png(side, side, 8, 2, zlib.compress(_rows(side, 24, 4), 1))


def _deep_png(side: int) -> bytes:
    return png(side, side, 16, 6, zlib.compress(_rows(side, 64, 4), 1))


def _interlaced_png(side: int) -> bytes:
    """A side that eight divides: then each pass has whole rows."""
    passes = [(side // 8, side // 8), (side // 8, side // 8), (side // 4, side // 8)]
    passes += [(side // 4, side // 4), (side // 2, side // 4), (side // 2, side // 2)]
    passes += [(side, side // 2)]
    row = b"\x04" + bytes(range(256)) * (side * 4 // 256 + 1)
    rows = b"".join(row[: 1 + width * 4] * height for width, height in passes)
    return png(side, side, 8, 6, zlib.compress(rows, 1), interlaced=True)


def _bit_png(side: int) -> bytes:
    return png(side, side, 1, 0, zlib.compress(_rows(side, 1, 0), 1))


def _nothing_for_ever(size_bytes: int) -> bytes:
    """Deflate blocks of zeros, none of which refers to another."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = compressor.compress(bytes(2**20)) + compressor.flush(zlib.Z_FULL_FLUSH)
    return block * (size_bytes // len(block))


def _endless_png() -> bytes:
    """Pixels of 1000 x 1000, and then zeros: 15 MB of them, compressed."""
    compressor = zlib.compressobj(9)
    pixels = compressor.compress(_rows(1000, 24, 4)) + compressor.flush(zlib.Z_FULL_FLUSH)
    return png(1000, 1000, 8, 2, pixels + _nothing_for_ever(15_000_000) + b"\x03\0")


def _texts_png() -> bytes:
    """A thousand compressed texts, of 8 MB each."""
    text = zlib.compress(bytes(7_900_000), 9)
    texts = chunk(b"zTXt", b"k\0\0" + text) * 1000
    return png(100, 100, 8, 2, zlib.compress(_rows(100, 24, 0)), before=texts)


def _bits(fields: list[tuple[int, int]]) -> int:
    """A number whose bits are those of the fields (value, count), the lowest first."""
    number = place = 0
    for value, count in fields:
        number |= value << place
        place += count
    return number


def _empty_tables(size_bytes: int) -> bytes:
    """Deflate blocks (RFC 1951, 3.2.7) with tables of two symbols, and no data but their end.

    Their lengths are those of 255 zeros (138 and 117 of them), two ones, and a one for distances.
    """
    # Code lengths, in the order 16, 17, 18, 0, ..., 1: two bits for 18, one for 1.
    lengths = [(1 if at == 2 else 1 if at == 17 else 0, 3) for at in range(18)]
    zeros = [(1, 1), (138 - 11, 7), (1, 1), (117 - 11, 7)]
    block = [(0, 1), (2, 2), (0, 5), (0, 5), (14, 4), *lengths, *zeros, (0, 1), (0, 1), (0, 1)]
    block.append((1, 1))
    count = sum(bits for _, bits in block)
    eight = _bits(block * 8).to_bytes(count, "little")
    return eight * (size_bytes // count)


def _tables_png() -> bytes:
    """Nothing but tables for most of its bytes, in front of the pixels."""
    compressor = zlib.compressobj(1, zlib.DEFLATED, -15)
    pixels = compressor.compress(_rows(1000, 24, 0)) + compressor.flush()
    return png(1000, 1000, 8, 2, b"\x78\x01" + _empty_tables(15_000_000) + pixels + bytes(4))


_LOSSLESS_ORDER = (17, 18, 0, 1, 2, 3, 4, 5, 16, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
# A prefix code of the one symbol 0, and one whose 256 symbols have 8 bits each.
_ONE_SYMBOL: list[tuple[int, int]] = [(1, 1), (0, 1), (0, 1), (0, 1)]
_ALL_BYTES = [(0, 1), (8, 4), *[(int(length == 8), 3) for length in _LOSSLESS_ORDER[:12]]]
_ALL_BYTES += [(1, 1), (3, 3), (254, 8)]
# Symbols of 1, 2, ..., 15 and 15 bits, which make a decoder's table long. All of the lengths from
# 0 to 15 have four bits themselves.
_DEEP = [(0, 1), (15, 4), *[(0 if length > 15 else 4, 3) for length in _LOSSLESS_ORDER]]
_DEEP += [(1, 1), (1, 3), (14, 4)]
_DEEP += [(int(f"{length:04b}"[::-1], 2), 4) for length in (*range(1, 16), 15)]


def _group_stream(
    side: int,
    groups: int,
    *,
    deep: bool = False,
    tile_bits: int = 2,
    transforms: Sequence[tuple[int, int]] = (),
) -> bytes:
    """A lossless stream behind its header (RFC 9649, 3.5 to 3.7.2), of a group a tile in turn.

    Its pixels are the first symbol of each code.
    """
    tiles = -(-side // (1 << tile_bits))
    fields = [*transforms, (0, 1), (0, 1), (1, 1), (tile_bits - 2, 3), (0, 1)]
    fields += _ALL_BYTES * 2 + _ONE_SYMBOL * 3
    start, place = _bits(fields), sum(bits for _, bits in fields)
    reversed_bytes = [int(f"{value:08b}"[::-1], 2) for value in range(256)]
    numbers = np.arange(tiles * tiles) % groups
    pixels = np.asarray(reversed_bytes, np.uint8)[np.stack([numbers & 255, numbers >> 8], 1)]
    code = (_DEEP if deep else _ONE_SYMBOL) * 5 * 8
    eight = _bits(code).to_bytes(sum(bits for _, bits in code) // 8, "little")
    whole = pixels.tobytes() + eight * (-(-groups // 8))
    # A pixel of deep codes has four bits.
    rest = side * side // 2 if deep else 0
    stream = start | int.from_bytes(whole, "little") << place
    return stream.to_bytes(len(whole) + place // 8 + 1, "little") + bytes(rest)


def riff(*chunks: tuple[bytes, bytes]) -> bytes:
    """A WebP file."""
    content = b"WEBP" + b"".join(
        kind + struct.pack("<I", len(data)) + data + bytes(len(data) % 2) for kind, data in chunks
    )
    return b"RIFF" + struct.pack("<I", len(content)) + content


def webp_of_groups(
    groups: int, *, side: int = 1024, extended: bool = False, **stream: Any
) -> bytes:
    """A lossless WebP with so many groups of Huffman codes; `stream` is for `_group_stream`."""
    header = b"\x2f" + struct.pack("<I", side - 1 | side - 1 << 14)
    chunks = [(b"VP8L", header + _group_stream(side, groups, **stream))]
    if extended:
        chunks.insert(0, (b"VP8X", bytes(4) + struct.pack("<I", side - 1)[:3] * 2))
    return riff(*chunks)


def webp_animation(side: int, *images: bytes) -> bytes:
    """WebPs of one size as the frames of an animation."""
    sides = struct.pack("<I", side - 1)[:3] * 2
    frames = [(b"ANMF", bytes(6) + sides + bytes(4) + image[12:]) for image in images]
    return riff((b"VP8X", bytes([2, 0, 0, 0]) + sides), (b"ANIM", bytes(6)), *frames)


def _extended(side: int, flags: int = 0) -> tuple[bytes, bytes]:
    """The chunk that tells of others, for a picture of that side."""
    return b"VP8X", bytes([flags, 0, 0, 0]) + struct.pack("<I", side - 1)[:3] * 2


def webp_alpha_of_groups(
    groups: int, *, side: int = 1024, flags: int = 0x10, decoys: Sequence[tuple[bytes, bytes]] = ()
) -> bytes:
    """A lossy WebP whose alpha channel has so many groups, behind other chunks."""
    lossy = _webp(side, quality=1)
    alpha = b"\x01" + _group_stream(side, groups)
    return riff(_extended(side, flags), *decoys, (b"ALPH", alpha), (b"VP8 ", lossy[20:]))


def webp_behind_a_frame(groups: int, *, side: int = 1024, **stream: Any) -> bytes:
    """A frame of one pixel, which is passed over where no flag says that there are frames."""
    cheap = _encoded(".webp", np.zeros((1, 1, 3), np.uint8), cv2.IMWRITE_WEBP_QUALITY, 101)
    picture = webp_of_groups(groups, side=side, **stream)
    return riff(_extended(side), (b"ANMF", bytes(16) + cheap[12:]), (b"VP8L", picture[20:]))


def webp_of_false_length(groups: int) -> bytes:
    """Its chunk is said to be 30 bytes long; a decoder reads on."""
    data = bytearray(webp_of_groups(groups))
    data[16:20] = struct.pack("<I", 30)
    return bytes(data)


def webp_of_tiles(side: int, size_bytes: int) -> bytes:
    """Nothing but a transform with as many tiles as there can be, of a bit each."""
    two_symbols = [(1, 1), (1, 1), (0, 1), (0, 1), (1, 8)]
    fields = [(1, 1), (0, 2), (0, 3), (0, 1), *two_symbols, *_ONE_SYMBOL * 4]
    header = b"\x2f" + struct.pack("<I", side - 1 | side - 1 << 14)
    return riff((b"VP8L", header + _bits(fields).to_bytes(size_bytes, "little")))


def _webp(
    side: int, *, alpha: bool = False, frames: int = 1, noise: int = 0, **options: Any
) -> bytes:
    pixels = _pixels(side)
    if noise:
        random = np.random.default_rng(1)
        pixels = cv2.add(pixels, random.integers(0, noise, pixels.shape, dtype=np.uint8))
    if alpha:
        pixels = np.dstack([pixels, pixels[:, :, 0]])
    image = Image.fromarray(pixels)
    others = [image.rotate(90) for _ in range(1, frames)]
    if others:
        options |= {"save_all": True, "append_images": others}
    out = io.BytesIO()
    image.save(out, "WEBP", method=0, **options)
    return out.getvalue()


def _bmp(side: int) -> bytes:
    """One bit a pixel: most pixels for its bytes."""
    row_bytes = (side + 31) // 32 * 4
    header = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 1, 0, 0, 0, 0, 2, 2)
    palette = bytes([0, 0, 0, 0, 255, 255, 255, 0])
    start = 14 + len(header) + len(palette)
    head = b"BM" + struct.pack("<IHHI", start + row_bytes * side, 0, 0, start)
    return head + header + palette + bytes([0xA5]) * (row_bytes * side)


WORST: dict[str, Callable[[], bytes]] = {
    "jpeg, plain": lambda: plain_jpeg(7141),
    "jpeg, turned by EXIF": lambda: _turned_jpeg(7141),
    "jpeg, progressive, usual scans": lambda: plain_jpeg(6100, 1),
    "jpeg, progressive, 90 scans": lambda: _many_scans(2200, 80),
    "jpeg, progressive, 30 scans": lambda: _many_scans(3700, 20),
    "jpeg, one scan of three": lambda: _one_scan_of_three(6290),
    "png, RGB": lambda: _paeth_png(4350),
    "png, RGBA of 16 bits": lambda: _deep_png(2830),
    "png, RGBA, interlaced": lambda: _interlaced_png(3424),
    "png, one bit": lambda: _bit_png(7141),
    "png, 1,000 texts": _texts_png,
    "png, data behind the pixels": _endless_png,
    "png, tables without data": _tables_png,
    "webp, lossy": lambda: _webp(7000, quality=2),
    "webp, lossless": lambda: _webp(2900, noise=12, lossless=True, quality=0),
    "webp, alpha": lambda: _webp(3000, noise=12, alpha=True, quality=50),
    "webp, animated": lambda: _webp(4600, frames=2, quality=1),
    "webp, lossless, alpha": lambda: _webp(2500, noise=12, alpha=True, lossless=True, quality=0),
    "webp, most groups of tables": lambda: webp_of_groups(
        12_900, side=2800, tile_bits=4, deep=True
    ),
    "webp, 65,536 groups of tables": lambda: webp_of_groups(65_536),
    "webp, the same, and long ones": lambda: webp_of_groups(65_536, deep=True),
    "webp, the same, extended": lambda: webp_of_groups(65_536, extended=True),
    "webp, the same, in its alpha": lambda: webp_alpha_of_groups(65_536),
    "webp, the same, not in its flags": lambda: webp_alpha_of_groups(65_536, flags=0),
    "webp, the same, in a frame": lambda: webp_animation(1024, webp_of_groups(65_536)),
    "webp, the same, in frame 2": lambda: webp_animation(
        1024, _webp(1024, quality=1), webp_of_groups(65_536)
    ),
    "webp, the same, behind a frame": lambda: webp_behind_a_frame(65_536),
    "webp, the same, of false length": lambda: webp_of_false_length(65_536),
    "webp, the same, two sizes": lambda: webp_alpha_of_groups(65_536, decoys=[_extended(1)]),
    "webp, tiles without end": lambda: webp_of_tiles(5700, 40_000),
    "bmp, one bit": lambda: _bmp(7141),
}
"""The costliest that were found of the formats that are decoded by default."""

REFUSED = {
    "png, tables without data",
    "webp, 65,536 groups of tables",
    "webp, the same, and long ones",
    "webp, the same, extended",
    "webp, the same, in its alpha",
    "webp, the same, not in its flags",
    "webp, the same, in a frame",
    "webp, the same, in frame 2",
    "webp, the same, behind a frame",
    "webp, the same, of false length",
    "webp, the same, two sizes",
    "webp, tiles without end",
}
"""Of these those that are not let through, and would cost more."""

OTHERS = {
    name: (lambda suffix=suffix: _encoded(suffix, _pixels(2000)))
    for name, suffix in {
        "gif": ".gif",
        "tiff": ".tiff",
        "avif": ".avif",
        "jpeg2000": ".jp2",
        "hdr": ".hdr",
        "pnm": ".ppm",
        "pfm": ".pfm",
        "sunraster": ".sr",
    }.items()
}
"""Usual ones of 4 million pixels."""


def main() -> None:
    """Write the table."""
    titles = ("image", "width", "height", "file_bytes", "work", "estimated_bytes", "cpu_s")
    rows = csv.writer(sys.stdout)
    rows.writerow([*titles, "memory_bytes", "reference_s", "outcome"])
    with Measuring() as measuring:
        for name, build in {**WORST, **OTHERS}.items():
            data = build()
            cost, found = image_cost(data), measuring.measure(data)
            assert cost is not None
            costs = (cost.width, cost.height, len(data), round(cost.work), cost.memory_bytes)
            outcome = "decoded" if isinstance(found["outcome"], list) else "refused"
            times = [round(found[key], 3) for key in ("cpu_s", "memory_bytes", "reference_s")]
            rows.writerow([name, *costs, *times, outcome])


if __name__ == "__main__":
    main()
