"""Sizes from headers: real files of each format, and damaged ones."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.image_header import image_size

IMAGE = np.arange(30 * 20 * 3, dtype=np.uint8).reshape(30, 20, 3)


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
    ],
)
def test_width_and_height_of_each_format(suffix: str, flags: tuple[int, ...]) -> None:
    data = encode(suffix, *flags)
    assert image_size(data) == (20, 30)
    assert image_size(memoryview(data)) == (20, 30)
    for end in range(len(data)):
        assert image_size(data[:end]) in (None, (20, 30))


def test_the_canvas_of_an_extended_webp() -> None:
    canvas = (16383).to_bytes(3, "little") + (9999).to_bytes(3, "little")
    data = b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0" + bytes(4) + canvas
    assert image_size(data) == (16384, 10000)


def test_bitmaps_of_both_kinds() -> None:
    """Rows that run downwards have a negative height; the oldest header has 16-bit numbers."""
    data = bytearray(encode(".bmp"))
    data[22:26] = (-30).to_bytes(4, "little", signed=True)
    assert image_size(bytes(data)) == (20, 30)
    core = b"BM" + bytes(12) + (12).to_bytes(4, "little") + b"\xff\xff\x02\x00"
    assert image_size(core) == (65535, 2)


@pytest.mark.parametrize("data", [b"", b"no image at all", "text", None, encode(".tiff")])
def test_what_has_no_known_header_has_no_size(data: object) -> None:
    assert image_size(data) is None


@given(
    st.sampled_from([b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"RIFF", b"\xff\xd8"]),
    st.binary(max_size=64),
)
def test_whatever_follows_is_no_error(start: bytes, rest: bytes) -> None:
    image_size(start + rest)
    image_size(b"RIFF\0\0\0\0WEBP" + rest)
