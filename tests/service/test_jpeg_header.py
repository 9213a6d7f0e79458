"""The header reader, on real JPEGs and on damaged ones."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.jpeg_header import read_jpeg_header

IMAGE = np.arange(30 * 20 * 3, dtype=np.uint8).reshape(30, 20, 3)


def encode(image: np.ndarray, *flags: int, suffix: str = ".jpg") -> bytes:
    return cv2.imencode(suffix, image, flags)[1].tobytes()


def test_a_baseline_jpeg() -> None:
    header = read_jpeg_header(encode(IMAGE))
    assert header is not None
    assert (header.height, header.width, header.components) == (30, 20, 3)
    assert header.baseline
    assert header.complete


def test_photographs(photographs: list[bytes]) -> None:
    for data in photographs:
        header = read_jpeg_header(data)
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        assert header is not None
        assert (header.height, header.width) == decoded.shape[:2]
        assert header.baseline
        assert header.complete


def test_grey_and_progressive() -> None:
    grey = read_jpeg_header(encode(IMAGE[:, :, 0]))
    assert grey is not None
    assert grey.components == 1
    progressive = read_jpeg_header(encode(IMAGE, cv2.IMWRITE_JPEG_PROGRESSIVE, 1))
    assert progressive is not None
    assert not progressive.baseline


def test_a_thumbnail_in_front_is_passed_over() -> None:
    """An APP1 segment may hold a whole JPEG of another size."""
    thumbnail = encode(IMAGE[:4, :4])
    segment = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    data = encode(IMAGE)
    header = read_jpeg_header(data[:2] + segment + b"\xff" + data[2:])
    assert header is not None
    assert (header.height, header.width) == (30, 20)


def test_a_truncated_one_is_not_complete() -> None:
    data = encode(IMAGE)
    header = read_jpeg_header(data[:-40])
    assert header is not None
    assert not header.complete


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xd8",
        b"no image at all",
        encode(IMAGE, suffix=".png"),
        encode(IMAGE)[:160],
        b"\xff\xd8\xff\xda\x00\x02",
        b"\xff\xd8\xff\xe0\xff\xff",
        b"\xff\xd8\xff\xc0\x00\x11\x08",
    ],
)
def test_what_has_no_frame_header_gives_none(data: bytes) -> None:
    assert read_jpeg_header(data) is None


@given(st.binary(max_size=400))
def test_it_ends_whatever_follows(tail: bytes) -> None:
    read_jpeg_header(b"\xff\xd8" + tail)
    read_jpeg_header(b"\xff\xd8\xff\xe0\x00\x00" + tail)


@pytest.mark.parametrize("filler", [b"\xff", b"\xff\xe0\x00\x02", b"\xff\x01"])
def test_a_header_behind_endless_markers_is_not_looked_for(filler: bytes) -> None:
    assert read_jpeg_header(b"\xff\xd8" + filler * 10_000 + encode(IMAGE)[2:]) is None
    found = read_jpeg_header(b"\xff\xd8" + filler * 1000 + encode(IMAGE)[2:])
    assert found is not None
    assert found.width == 20
