"""Sizes from headers: real files of each format, and damaged ones."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from interfaces.image_formats import FORMATS, image_format
from service.images.header import size_of

IMAGE = (np.arange(90 * 60 * 3) % 251).astype(np.uint8).reshape(90, 60, 3)


def image_size(data: bytes | memoryview) -> tuple[int, int] | None:
    found = image_format(data)
    return None if found is None else size_of(data, found)


def encode(suffix: str, *flags: int) -> bytes:
    return cv2.imencode(suffix, IMAGE, flags)[1].tobytes()


@pytest.mark.parametrize(
    ("suffix", "flags"),
    [
        (".jpg", ()),
        (".png", ()),
        (".gif", ()),
        (".bmp", ()),
        (".webp", (cv2.IMWRITE_WEBP_QUALITY, 80)),
        (".webp", (cv2.IMWRITE_WEBP_QUALITY, 101)),
        (".tiff", ()),
        (".avif", ()),
        (".jp2", ()),
        (".hdr", ()),
        (".ppm", ()),
        (".pam", ()),
        (".pfm", ()),
        (".sr", ()),
    ],
)
def test_width_and_height_of_each_format(suffix: str, flags: tuple[int, ...]) -> None:
    data = encode(suffix, *flags)
    assert image_size(data) == (60, 90)
    assert image_size(memoryview(data)) == (60, 90)
    for end in (*range(200), *range(200, len(data), 97)):
        assert image_size(data[:end]) in (None, (60, 90))


def test_the_canvas_of_an_extended_webp() -> None:
    canvas = (16383).to_bytes(3, "little") + (9999).to_bytes(3, "little")
    data = b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0" + bytes(4) + canvas
    assert image_size(data) == (16384, 10000)


def test_bitmaps_of_both_kinds() -> None:
    """Rows that run downwards have a negative height; the oldest header has 16-bit numbers."""
    data = bytearray(encode(".bmp"))
    data[22:26] = (-90).to_bytes(4, "little", signed=True)
    assert image_size(bytes(data)) == (60, 90)
    core = b"BM" + bytes(12) + (12).to_bytes(4, "little") + b"\xff\xff\x02\x00"
    assert image_size(core) == (65535, 2)


@pytest.mark.parametrize("data", [b"", b"no image at all", b"P6 no numbers", b"II*\0\xff\xff"])
def test_what_has_no_known_header_has_no_size(data: bytes) -> None:
    assert image_size(data) is None


@given(
    st.sampled_from(
        [b"\0\0\0\x20ftypavif", *(sign for entry in FORMATS.values() for sign in entry.signatures)]
    ),
    st.binary(max_size=64),
)
def test_whatever_follows_is_no_error(start: bytes, rest: bytes) -> None:
    image_size(start + rest)
    image_size(b"RIFF\0\0\0\0WEBP" + rest)
