"""What OpenCV is given of a PNG: the same pixels as from the whole file, for less."""

from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.handlers.outcomes import InvalidImageError
from service.images.decoding import decode_bgr
from service.images.png import is_stored_again, needful_png, read_png
from tests.service.images.image_costs import chunk, png

PNG = cv2.imencode(".png", np.arange(300, dtype=np.uint8).reshape(10, 10, 3))[1].tobytes()
EXIF = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0%c\0\0\0\0\0\0"
SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
KINDS = [(0, 1), (0, 2), (0, 4), (0, 8), (0, 16), (2, 8), (2, 16), (3, 1), (3, 2), (3, 4), (3, 8)]
KINDS += [(4, 8), (4, 16), (6, 8), (6, 16)]
# Ancillary chunks that are right for any image, but for what its colours decide.
ANCILLARY = {
    b"gAMA": struct.pack(">I", 90_000),
    b"sRGB": b"\0",
    b"cHRM": struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000),
    b"pHYs": b"\0\0\x10\0\0\0\x20\0\x01",
    b"tIME": b"\x07\xd0\1\1\1\1\1",
    b"tEXt": b"Title\0text",
    b"zTXt": b"Title\0\0" + zlib.compress(b"text"),
    b"iTXt": b"Title\0\1\0\0\0" + zlib.compress(b"text"),
    b"cICP": b"\x09\x10\0\1",
    b"oFFs": bytes(9),
    b"prVt": b"private",
    b"fcTL": bytes(26),
}


def opencv(data: bytes | bytearray | memoryview) -> np.ndarray | None:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


@st.composite
def pngs(draw: st.DrawFn) -> bytes:
    """Of any colours, in passes or not, in one IDAT or several, with chunks in all places."""
    colour, depth = draw(st.sampled_from(KINDS))
    width, height = draw(st.integers(1, 20)), draw(st.integers(1, 20))
    interlaced = draw(st.booleans())
    bits = depth * SAMPLES[colour]
    empty = read_png(png(width, height, depth, colour, b"", interlaced=interlaced))
    random = np.random.default_rng(draw(st.integers(0, 9)))
    rows = bytearray(random.integers(0, 256, empty.filtered_bytes, dtype=np.uint8).tobytes())
    row_bytes = 1 + (width * bits + 7) // 8
    for start in range(0, len(rows), 1 if interlaced else row_bytes):
        rows[start] %= 5
    level = draw(st.sampled_from([0, 1, 9]))
    extra = {
        **ANCILLARY,
        b"tRNS": {0: b"\0\1", 2: b"\0\1\0\2\0\3"}.get(colour, bytes(range(2))),
        b"bKGD": {0: b"\0\1", 3: b"\1", 4: b"\0\1"}.get(colour, b"\0\1\0\2\0\3"),
        b"sBIT": bytes([1] * {0: 1, 4: 2, 6: 4}.get(colour, 3)),
        b"eXIf": EXIF % draw(st.integers(1, 8)),
    }
    names = st.lists(st.sampled_from(sorted(extra)), max_size=4, unique=True)
    before = b"".join(chunk(name, extra[name]) for name in draw(names))
    if colour == 3:
        before += chunk(b"PLTE", random.integers(0, 256, 3 << depth, dtype=np.uint8).tobytes())
        before += b"".join(chunk(name, extra[name]) for name in draw(names))
    after = b"".join(chunk(name, extra[name]) for name in draw(names))
    packed = zlib.compress(bytes(rows), level)
    cut = draw(st.integers(1, len(packed)))
    whole = png(
        width,
        height,
        depth,
        colour,
        packed[:cut],
        interlaced=interlaced,
        before=before,
        after=(chunk(b"IDAT", packed[cut:]) if cut < len(packed) else b"") + after,
    )
    return whole + draw(st.sampled_from([b"", b"more"]))


@settings(max_examples=300)
@given(pngs())
def test_nothing_that_is_left_out_changes_a_pixel(data: bytes) -> None:
    whole = opencv(data)
    assert whole is not None
    assert np.array_equal(opencv(needful_png(data)), whole)
    assert np.array_equal(decode_bgr(data), whole)


def test_a_png_without_anything_to_leave_out_is_not_copied() -> None:
    assert needful_png(PNG) is PNG


@pytest.mark.parametrize("kind", ["RGB", "palette", "RGBA of 16 bits"])
def test_pixels_that_are_stored_again_are_the_same(kind: str) -> None:
    """Where the data could hold more: in two chunks, and what comes after the rows is left out."""
    random = np.random.default_rng(0)
    depth, colour = {"RGB": (8, 2), "palette": (8, 3), "RGBA of 16 bits": (16, 6)}[kind]
    width, height = 300, 701
    bits = depth * SAMPLES[colour]
    rows = random.integers(0, 256, (height, 1 + width * bits // 8), dtype=np.uint8)
    rows[:, 0] %= 5
    packed = zlib.compress(rows.tobytes() + bytes(100_000), 6)
    before = chunk(b"PLTE", random.bytes(768)) if colour == 3 else b""
    data = png(
        width,
        height,
        depth,
        colour,
        packed[:50_000],
        before=before,
        after=chunk(b"IDAT", packed[50_000:]) + chunk(b"eXIf", EXIF % 6),
    )
    assert is_stored_again(read_png(data))
    needful = needful_png(data)
    assert read_png(needful).compressed_bytes < rows.size + 1000
    assert opencv(data).shape == (width, height, 3)
    assert np.array_equal(opencv(needful), opencv(data))


@pytest.mark.parametrize("rows", [66, 1000])
def test_pixels_that_end_early_are_inflated_once(rows: int) -> None:
    """Where the data are too few, or damaged: OpenCV would find the same, for as much again."""
    packed = zlib.compress(np.random.default_rng(0).bytes(rows * 3001))
    damaged = packed[:-4] + bytes(4)
    data = png(1000, 1000, 8, 2, damaged)
    assert is_stored_again(read_png(data))
    assert opencv(data) is None
    with pytest.raises(InvalidImageError, match="its pixels end before the last row"):
        needful_png(data)


def test_an_animation_shows_its_default_image() -> None:
    still = opencv(PNG)
    frame = struct.pack(">IIIIIHHBB", 0, 10, 10, 0, 0, 1, 10, 0, 0)
    at = PNG.index(b"IDAT") - 4
    end = PNG.index(b"IEND") - 4
    moving = chunk(b"fcTL", frame) + chunk(b"fdAT", b"\0\0\0\1" + zlib.compress(bytes(310)))
    data = PNG[:at] + chunk(b"acTL", struct.pack(">II", 1, 0)) + PNG[at:end] + moving + PNG[end:]
    assert np.array_equal(decode_bgr(data), still)


def test_of_several_orientations_the_first_counts() -> None:
    at = PNG.index(b"IDAT") - 4
    data = PNG[:at] + chunk(b"eXIf", EXIF % 6) + chunk(b"eXIf", EXIF % 3) + PNG[at:]
    assert np.array_equal(decode_bgr(data), opencv(data))
    assert not np.array_equal(decode_bgr(data), opencv(PNG))


def test_every_png_that_is_cut_short_is_found() -> None:
    for end in range(8, len(PNG)):
        with pytest.raises(InvalidImageError, match=r"the file ends before that|it ends before"):
            read_png(PNG[:end])
    assert not read_png(memoryview(PNG)).superfluous
    assert read_png(PNG + b"more").superfluous


@pytest.mark.parametrize("data", [b"", b"\x89PNG", b"\xff\xd8\xff", PNG[:8] + PNG[33:]])
def test_other_files_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidImageError, match="the PNG is damaged"):
        read_png(data)


def test_a_walk_has_an_end() -> None:
    empty = bytes(4) + b"tEXt" + bytes(4)
    with pytest.raises(InvalidImageError, match="fewer than 256 bytes each"):
        read_png(PNG[:8] + empty * 70_000)
