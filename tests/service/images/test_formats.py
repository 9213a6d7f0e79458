"""Which formats are known, and which of them are decoded."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from interfaces.image_formats import FORMATS, image_format
from service.errors import ConfigurationError
from service.handlers.outcomes import InvalidImageError
from service.images.decoding import decode_bgr
from service.images.limit import ImageLimit
from service.options.server_settings import ServerSettings

PIXELS = np.full((90, 60, 3), (10, 200, 90), np.uint8)
SUFFIXES = [(name, suffix) for name, entry in FORMATS.items() for suffix in entry.suffixes]


def encoded(suffix: str) -> bytes:
    pixels = PIXELS if suffix not in (".pgm", ".pbm") else PIXELS[:, :, 0]
    # OpenCV writes no code stream by itself; it is the last box of the file.
    data = cv2.imencode(".jp2" if suffix == ".j2k" else suffix, pixels)[1].tobytes()
    return data[data.index(b"\xff\x4f\xff\x51") :] if suffix == ".j2k" else data


@pytest.mark.parametrize(("name", "suffix"), SUFFIXES)
def test_opencv_decodes_each_format_of_the_table(name: str, suffix: str) -> None:
    data = encoded(suffix)
    found = image_format(data)
    assert found is not None
    assert found.name == name
    assert decode_bgr(data).shape == PIXELS.shape
    assert ImageLimit(1_000_000, formats=(name,)).failure(data) is None


def test_nothing_else_gets_to_opencv() -> None:
    """WebP without its container, for one."""
    data = cv2.imencode(".webp", PIXELS, [cv2.IMWRITE_WEBP_QUALITY, 80])[1].tobytes()
    bare = data[12:]
    assert cv2.imdecode(np.frombuffer(bare, np.uint8), cv2.IMREAD_COLOR) is not None
    assert image_format(bare) is None
    with pytest.raises(InvalidImageError, match="or a format that OpenCV does not read"):
        decode_bgr(bare)


def test_the_refusal_names_format_and_option() -> None:
    failure = ImageLimit(1_000_000).failure(encoded(".gif"))
    assert str(failure) == ("the image is gif, and --image-formats allows jpeg, png, webp, bmp")


def test_an_unknown_format_is_told_with_the_closest() -> None:
    with pytest.raises(ConfigurationError, match="unknown format 'jpg'; did you mean 'jpeg'"):
        ServerSettings(image_formats=("jpg", "png"))


@pytest.mark.parametrize(
    ("marker", "kind"), [(0xC9, "arithmetic"), (0xC3, "lossless"), (0xC5, "hierarchical")]
)
def test_rare_kinds_of_jpeg_are_refused(marker: int, kind: str) -> None:
    data = bytearray(encoded(".jpg"))
    data[data.index(b"\xff\xc0") + 1] = marker
    assert kind in str(ImageLimit(1_000_000).failure(bytes(data)))


def test_a_header_that_is_cut_short_is_refused() -> None:
    for suffix in (".jpg", ".png", ".webp", ".bmp"):
        failure = ImageLimit(1_000_000).failure(encoded(suffix)[:20])
        assert "is damaged" in str(failure)
