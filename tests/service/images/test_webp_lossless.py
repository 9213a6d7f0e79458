"""How many Huffman groups a lossless WebP has, told from its bit stream."""

from __future__ import annotations

import io
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from service.handlers.outcomes import InvalidImageError
from service.images.cost import image_cost
from service.images.limit import ImageLimit
from service.images.webp import read_webp
from service.images.webp_lossless import HuffmanGroups, most_huffman_groups
from service.options.server_settings import ServerSettings
from tests.service.images.image_costs import (
    riff,
    webp_alpha_of_groups,
    webp_animation,
    webp_behind_a_frame,
    webp_of_false_length,
    webp_of_groups,
    webp_of_tiles,
)

# A prefix code with nothing but the symbol 0, and an image of it behind its own five.
ONE_SYMBOL = [(1, 1), (0, 1), (0, 1), (0, 1)]
OF_ONE_COLOUR = [(0, 1), *ONE_SYMBOL * 5]
TRANSFORMS = {
    "none": [],
    "predictor": [(1, 1), (0, 2), (2, 3), *OF_ONE_COLOUR],
    "colour": [(1, 1), (1, 2), (2, 3), *OF_ONE_COLOUR],
    "subtract green": [(1, 1), (2, 2)],
    "palette of 200": [(1, 1), (3, 2), (199, 8), *OF_ONE_COLOUR],
}
LIMITS = ServerSettings()


def groups(data: bytes) -> HuffmanGroups:
    return most_huffman_groups(data, read_webp(data))


def lossless_photograph(side: int, method: int, **options: Any) -> bytes:
    random = np.random.default_rng(side)
    few = random.integers(0, 256, (side // 40 + 2, side // 40 + 2, 3), dtype=np.uint8)
    pixels = cv2.resize(few, (side, side), interpolation=cv2.INTER_CUBIC)
    pixels = cv2.add(pixels, random.integers(0, 6, pixels.shape, dtype=np.uint8))
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "WEBP", lossless=True, method=method, **options)
    return out.getvalue()


@pytest.mark.parametrize("transforms", TRANSFORMS)
@pytest.mark.parametrize(("count", "side", "deep"), [(900, 128, False), (2000, 256, True)])
def test_groups_are_counted_behind_the_transforms(
    transforms: str, count: int, side: int, deep: bool
) -> None:
    data = webp_of_groups(count, side=side, deep=deep, transforms=TRANSFORMS[transforms])
    assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape == (side, side, 3)
    assert groups(data).count == count


def test_of_few_colours_several_are_in_one_pixel() -> None:
    """Two colours: a column of tiles covers 32 pixels, and there are eight of them, not 64."""
    transform = [(1, 1), (3, 2), (1, 8), *OF_ONE_COLOUR]
    data = webp_of_groups(500, side=256, transforms=transform)
    assert groups(data).count == 500
    narrow = webp_of_groups(4096, side=256, transforms=transform)
    # Of the pixels that stand for tiles only the first 8 x 64 are read.
    assert groups(narrow).count == 512


@pytest.mark.parametrize("side", [100, 500, 1200])
@pytest.mark.parametrize("method", [0, 4, 6])
def test_what_encoders_write_is_read_and_let_through(side: int, method: int) -> None:
    data = lossless_photograph(side, method, quality=60)
    found = groups(data)
    # The number of possible ones is far above.
    assert found.count <= 600
    cost = image_cost(data)
    assert cost is not None
    assert cost.memory_bytes < 12 * side * side + 12e6
    assert ImageLimit(LIMITS.max_image_pixels, LIMITS.max_decoded_bytes).failure(data) is None


@pytest.mark.parametrize("few", ["colours", "noise"])
def test_drawings_are_read(few: str) -> None:
    """Palettes, the colour cache and references back."""
    random = np.random.default_rng(3)
    colours = random.integers(0, 256, (3 if few == "colours" else 200, 3), dtype=np.uint8)
    pixels = np.kron(random.integers(0, len(colours), (100, 100)), np.ones((6, 6), np.int64))
    pixels[::7] = random.integers(0, len(colours), (len(pixels[::7]), 600))
    out = io.BytesIO()
    Image.fromarray(colours[pixels]).save(out, "WEBP", lossless=True, method=4)
    assert groups(out.getvalue()).count < 200


def test_groups_that_take_too_long_to_count_are_taken_as_all_that_are_possible() -> None:
    found = groups(webp_of_groups(65_536))
    assert found.count == 65_536
    assert found.steps < 15_000


@pytest.mark.parametrize("size_bytes", [1400, 40_000, 5_000_000])
def test_counting_takes_a_step_for_32_bytes_and_never_many(size_bytes: int) -> None:
    data = webp_of_tiles(5700, size_bytes)
    found = groups(data)
    assert found.steps <= min(2048 + len(data) // 32, 32_768) + 300
    # Where it comes to the end of the data, or of the steps, whatever fits into them may be there.
    assert found.count == min(65_536, 8 * len(data) // 20 + 1)


def test_of_an_image_with_too_many_pixels_nothing_is_counted() -> None:
    """The first of the limits that it breaks is told."""
    failure = ImageLimit(LIMITS.max_image_pixels).failure(webp_of_tiles(16_383, 1400))
    assert "are 268402689 pixels; --max-image-pixels allows" in str(failure)


@pytest.mark.parametrize("cut", range(50, 400, 17))
def test_a_stream_that_is_cut_short_is_left_to_the_decoder(cut: int) -> None:
    data = webp_of_groups(2000, side=256, deep=True)
    assert ImageLimit(LIMITS.max_image_pixels).failure(data[:cut]) is None


def test_random_streams_end() -> None:
    random = np.random.default_rng(0)
    for _ in range(300):
        data = webp_of_groups(1, side=400)[:25] + random.bytes(4000)
        found = groups(data)
        assert 0 <= found.count <= 10_000
        assert found.memory_bytes < 250e6


CHEAP = cv2.imencode(".webp", np.zeros((256, 256, 3), np.uint8), [cv2.IMWRITE_WEBP_QUALITY, 101])
HIDDEN = {
    "behind a frame that is passed over": webp_behind_a_frame(2000, side=256),
    "behind its chunk": webp_of_false_length(2000),
    "in an alpha channel": webp_alpha_of_groups(2000, side=256),
    "in an alpha channel of a false size": webp_alpha_of_groups(
        2000, side=256, decoys=[(b"VP8X", bytes(10))]
    ),
    "in an alpha channel with a false picture before it": webp_alpha_of_groups(
        2000, side=256, decoys=[(b"VP8 ", bytes(3) + b"\x9d\x01\x2a\x01\x00\x01\x00")]
    ),
    "in the second picture": riff(
        (b"VP8L", CHEAP[1].tobytes()[20:]), (b"VP8L", webp_of_groups(2000, side=256)[20:])
    ),
    "in an odd place": webp_animation(256, b"RIFF".ljust(13) + webp_of_groups(2000, side=256)[12:]),
}


@pytest.mark.parametrize("where", HIDDEN)
def test_groups_are_found_wherever_they_are(where: str) -> None:
    assert groups(HIDDEN[where]).count >= 2000


def test_false_lengths_are_none_to_a_decoder() -> None:
    """Why the lengths of chunks mean nothing here."""
    image = cv2.imdecode(np.frombuffer(HIDDEN["behind its chunk"], np.uint8), cv2.IMREAD_COLOR)
    assert image is not None


def test_animations_are_let_through() -> None:
    """Whose frames are all counted, though the first one is all that is decoded."""
    random = np.random.default_rng(0)
    few = random.integers(0, 256, (40, 12, 16, 3), dtype=np.uint8)
    frames = [Image.fromarray(cv2.resize(one, (400, 300))) for one in few]
    for options in ({"lossless": True}, {"quality": 80}):
        out = io.BytesIO()
        frames[0].save(out, "WEBP", save_all=True, append_images=frames[1:], **options)
        assert ImageLimit(LIMITS.max_image_pixels).failure(out.getvalue()) is None


@pytest.mark.parametrize("lossless", [True, False])
def test_usual_alpha_channels_are_let_through(lossless: bool) -> None:
    random = np.random.default_rng(0)
    few = random.integers(0, 256, (30, 40, 4), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(cv2.resize(few, (1200, 900)), "RGBA").save(out, "WEBP", lossless=lossless)
    assert ImageLimit(LIMITS.max_image_pixels).failure(out.getvalue()) is None


def test_chunks_tell_what_is_decoded_and_flags_do_not() -> None:
    data = webp_of_groups(900, side=128, extended=True)
    assert groups(data).count == 900
    cost = image_cost(data)
    assert cost is not None
    assert cost.why == "up to 900 groups of Huffman tables"


def test_pictures_without_end_are_refused() -> None:
    picture = CHEAP[1].tobytes()[20:]
    data = riff((b"VP8X", bytes(10)), *[(b"ALPH", b"\0")] * 5000, (b"VP8L", picture))
    with pytest.raises(InvalidImageError, match=r"more than 4096 pictures; save its first one"):
        image_cost(data)


def test_an_image_without_a_picture_is_damaged() -> None:
    with pytest.raises(InvalidImageError, match="damaged: it ends before its first picture"):
        image_cost(riff((b"VP8X", bytes(10)), (b"EXIF", b"")))
