"""No image within the limits costs more than 1 s of CPU time or 400 MB, whatever it is made of."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from interfaces.image_formats import DEFAULT_FORMATS, FORMATS
from service.handlers.outcomes import InvalidImageError
from service.images.cost import image_cost, largest_image_bytes
from service.images.limit import ImageLimit
from service.options.server_settings import ServerSettings
from tests.service.images.image_costs import (
    OTHERS,
    REFERENCE_S,
    REFUSED,
    WORST,
    Measuring,
    plain_jpeg,
)

MAX_CPU_S = 1.0
MAX_MEMORY_BYTES = 400e6
# What else a process takes in passing, such as its allocator.
SLACK_BYTES = 8e6
LIMITS = ServerSettings()


@pytest.fixture(scope="module")
def measuring() -> Iterator[Measuring]:
    with Measuring() as measuring:
        yield measuring


@pytest.mark.parametrize("name", WORST)
def test_the_costliest_images_stay_below_a_second_and_400_mb(
    measuring: Measuring, name: str
) -> None:
    data = WORST[name]()
    assert len(data) <= LIMITS.max_frame_bytes, "otherwise it cannot be sent"
    cost = image_cost(data)
    assert cost is not None
    found = measuring.measure(data)
    # A slower machine may take longer, by as much as it does for the reference.
    most_s = MAX_CPU_S * max(1.0, found["reference_s"] / REFERENCE_S)
    for _ in range(4):
        # A neighbour on the same core or memory adds to the CPU time, and nothing takes from it.
        if found["cpu_s"] <= most_s:
            break
        found = min(found, measuring.measure(data), key=lambda one: one["cpu_s"])
    refused = isinstance(found["outcome"], str)
    assert refused == (name in REFUSED), found
    assert found["cpu_s"] <= most_s, found
    assert found["memory_bytes"] <= min(MAX_MEMORY_BYTES, cost.memory_bytes + SLACK_BYTES), found


@pytest.mark.parametrize("name", OTHERS)
def test_no_other_format_takes_more_memory_than_its_header_tells(
    measuring: Measuring, name: str
) -> None:
    data = OTHERS[name]()
    cost = image_cost(data)
    assert cost is not None
    assert cost.format.name == name
    found = measuring.measure(data)
    assert found["outcome"] == [2000, 2000, 3]
    assert found["memory_bytes"] <= cost.memory_bytes + SLACK_BYTES, found


def test_every_format_is_measured() -> None:
    assert {name.partition(",")[0] for name in WORST} == set(DEFAULT_FORMATS)
    assert {*DEFAULT_FORMATS, *OTHERS} == set(FORMATS)


SMALL = [
    cv2.imencode(suffix, np.full((20, 20, 3), 77, np.uint8), flags)[1].tobytes()
    for suffix, flags in (
        (".jpg", ()),
        (".jpg", (cv2.IMWRITE_JPEG_PROGRESSIVE, 1)),
        (".png", ()),
        (".webp", (cv2.IMWRITE_WEBP_QUALITY, 90)),
        (".webp", (cv2.IMWRITE_WEBP_QUALITY, 101)),
        (".gif", ()),
        (".bmp", ()),
        (".avif", ()),
    )
]


@given(
    st.sampled_from(SMALL),
    st.lists(st.tuples(st.integers(2, 400), st.binary(max_size=6) | st.just(bytes(3))), max_size=4),
    st.integers(0, 700),
)
def test_damaged_ones_have_a_cost_or_are_bad_images(
    image: bytes, changes: list[tuple[int, bytes]], length: int
) -> None:
    data = bytearray(image)
    for position, replacement in changes:
        data[position : position + len(replacement)] = replacement
    for damaged in (bytes(data), bytes(data[:length])):
        try:
            image_cost(damaged)
        except InvalidImageError:
            continue


@pytest.mark.parametrize("components", [b"\0", b"\3\7\0\0\7\0\0\7\0\0"])
def test_a_jpeg_without_samples_is_a_bad_image(components: bytes) -> None:
    """There are none, or factors of 0 and scans of others."""
    data = bytearray(SMALL[1])
    count = data.index(b"\xff\xc2") + 9
    data[count : count + len(components)] = components
    with pytest.raises(InvalidImageError, match="no component that has samples"):
        image_cost(bytes(data))


def camera_export(height: int, width: int, quality: int, progressive: int) -> bytes:
    """As noisy as a sensor."""
    random = np.random.default_rng(0)
    noise = random.normal(0, 4, (1000, 1000, 1))
    few = random.integers(0, 256, (25, 25, 3)).astype(np.float32)
    tile = np.clip(cv2.resize(few, (1000, 1000), interpolation=cv2.INTER_CUBIC) + noise, 0, 255)
    pixels = np.tile(tile.astype(np.uint8), (height // 1000 + 1, width // 1000 + 1, 1))
    flags = (cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_PROGRESSIVE, progressive)
    return cv2.imencode(".jpg", pixels[:height, :width], flags)[1].tobytes()


def test_photographs_as_cameras_export_them_are_taken() -> None:
    """24 million pixels and 10 MB in scans, and 50 million of a telephone."""
    limit = ImageLimit(LIMITS.max_image_pixels, LIMITS.max_decoded_bytes)
    scans = camera_export(4000, 6000, 97, progressive=1)
    assert len(scans) > 10_000_000
    assert limit.failure(scans) is None
    assert limit.failure(camera_export(6144, 8192, 80, progressive=0)) is None
    assert limit.failure(plain_jpeg(4700, 1)) is None


@pytest.mark.parametrize("name", FORMATS)
def test_memory_grows_with_pixels_and_work_only(name: str) -> None:
    """The share of each worker holds any image that is let through."""
    for work, memory_bytes in _costs(name):
        assert memory_bytes <= largest_image_bytes(int(max(work, 200 * 200)) + 1)
    assert largest_image_bytes(LIMITS.max_image_pixels) < MAX_MEMORY_BYTES


def _costs(name: str) -> list[tuple[float, int]]:
    pixels = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    suffix = FORMATS[name].suffixes[0]
    images = [cv2.imencode(suffix, pixels)[1].tobytes()]
    if name == "jpeg":
        images.append(plain_jpeg(200, 1))
    if name in ("png", "webp", "avif"):
        alpha = np.dstack([pixels, pixels[:, :, 0]])
        images.append(cv2.imencode(suffix, alpha)[1].tobytes())
    costs = [image_cost(data) for data in images]
    return [(cost.work, cost.memory_bytes) for cost in costs if cost is not None]
