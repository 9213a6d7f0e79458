"""The header reader, on real JPEGs and on damaged ones."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.images.jpeg import (
    _is_plain,
    _scanned_samples,
    read_jpeg_header,
    scanned_samples,
)

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


def scans(data: bytes) -> float:
    header = read_jpeg_header(data)
    assert header is not None
    return scanned_samples(data, header)


def test_samples_that_scans_go_through() -> None:
    """Progressive ones have two scans of all components, two of colours, and four of light."""
    assert scans(encode(IMAGE)) == 0
    full = (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)
    progressive = encode(IMAGE, cv2.IMWRITE_JPEG_PROGRESSIVE, 1, *full)
    assert scans(progressive) == 2 * 3 + 2 * 2 + 4
    assert scans(encode(IMAGE, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)) == 2 * 1.5 + 4 * 0.25 + 4
    assert scans(progressive[:-2] + progressive[progressive.rindex(b"\xff\xda") : -2] * 3) == 17
    assert scans(progressive + progressive) == 14, "what follows the end is not read"


@given(
    st.integers(0, 1), st.lists(st.tuples(st.integers(2, 700), st.binary(max_size=6)), max_size=4)
)
def test_the_short_way_finds_what_the_search_finds(
    progressive: int, changes: list[tuple[int, bytes]]
) -> None:
    data = bytearray(encode(IMAGE, cv2.IMWRITE_JPEG_PROGRESSIVE, progressive))
    for position, replacement in changes:
        data[position : position + len(replacement)] = replacement
    header = read_jpeg_header(bytes(data))
    if header is not None and _is_plain(bytes(data), header):
        assert _scanned_samples(bytes(data), header) == 0.0


def test_scans_within_an_embedded_picture_do_not_count() -> None:
    data = encode(IMAGE, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    picture = b"\xff\xe1" + (len(data) + 2).to_bytes(2, "big") + data
    assert scans(data[:2] + picture + data[2:]) == scans(data)
    end = data.rindex(b"\xff\xda")
    assert scans(data[:end] + picture + data[end:]) == scans(data)


def test_scans_without_end() -> None:
    data = encode(IMAGE, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    last = data[data.rindex(b"\xff\xda") : -2]
    assert scans(data[:-2] + last * 2000 + data[-2:]) == float("inf")


def test_scans_behind_a_marker_without_a_length_are_counted() -> None:
    """Where it looks for a restart marker, a decoder takes what follows such a marker as it is."""
    data = encode(IMAGE, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    last = data[data.rindex(b"\xff\xda") : -2]
    restarts = b"\xff\xdd\x00\x04\x00\x01"
    hidden = b"\xff\x02" + (len(last) * 5 + 2).to_bytes(2, "big") + last * 5
    assert scans(data[:-2] + restarts + last + hidden + data[-2:]) == scans(data) + 6


@pytest.mark.parametrize("progressive", [0, 1])
def test_fill_bytes_without_end_are_not_gone_through(progressive: int) -> None:
    """Before the first scan, and behind one."""
    data = encode(IMAGE, cv2.IMWRITE_JPEG_PROGRESSIVE, progressive)
    at = data.rindex(b"\xff\xda")
    assert scans(data[:at] + b"\xff" * 200_000 + data[at:]) == float("inf")
    # A few are part of the format, and so are zeros behind those that belong to the data.
    assert scans(data[:at] + b"\xff" * 20_000 + data[at:]) == scans(data)
    assert scans(data[:at] + b"\xff\x00" * 200_000 + data[at:]) == scans(data)


def test_a_marker_across_two_pieces_of_the_search_is_found() -> None:
    data = encode(IMAGE, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    header = read_jpeg_header(data)
    assert header is not None
    at = header.end
    for count in range(65_530, 65_540):
        assert scans(data[:at] + bytes(count) + data[at:]) == scans(data)


@pytest.mark.parametrize("filler", [b"\xff\x01", b"\xff\xfe\x00\x02", b"\xff\x02"])
def test_markers_without_end_behind_the_header(filler: bytes) -> None:
    data = encode(IMAGE)
    start = data.index(b"\xff\xda")
    assert scans(data[:start] + filler * 8000 + data[start:]) == 0
    assert scans(data[:start] + filler * 9000 + data[start:]) == float("inf")


def test_components_that_share_an_identifier() -> None:
    """One of three is scanned at a time, however they are called."""
    data = bytearray(encode(IMAGE))
    frame = data.index(b"\xff\xc0")
    for component in range(3):
        data[frame + 10 + 3 * component] = 1
    scan = data.index(b"\xff\xda")
    one = b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00\x00"
    header = read_jpeg_header(bytes(data))
    assert header is not None
    assert header.components == 3
    assert scans(bytes(data[:scan]) + one * 3 + b"\xff\xd9") == 3
    assert scans(bytes(data[:scan]) + one * 1001 + b"\xff\xd9") == float("inf")


@given(st.binary(max_size=64))
def test_whatever_follows_the_frame_is_no_error(tail: bytes) -> None:
    data = encode(IMAGE, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    for start in (data[: data.index(b"\xff\xda")], data[:-2]):
        scans(start + tail)
        scans(start + b"\xff\xda" + tail)
