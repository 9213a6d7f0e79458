"""Tests that need an NVIDIA GPU: `make test-gpu`. Elsewhere they are skipped, and say why."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from loadtest.load.images import write_photo_set

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.gpu)
            if not torch.cuda.is_available():
                item.add_marker(pytest.mark.skip(reason="needs an NVIDIA GPU that torch can use"))


@pytest.fixture(scope="session")
def shipped_images(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """The load test's JPEGs, of several sizes."""
    folder = tmp_path_factory.mktemp("images")
    write_photo_set(folder)
    return [path.read_bytes() for path in sorted(folder.glob("*.jpg"))]


def _turned(jpeg: bytes, orientation: int = 6) -> bytes:
    """With an Exif block that asks for an orientation; 6 is a quarter turn."""
    entry = struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)
    block = b"Exif\0\0II" + struct.pack("<HIH", 42, 8, 1) + entry + bytes(4)
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + jpeg[2:]


@pytest.fixture(scope="session")
def orientations(photographs: list[bytes]) -> list[bytes]:
    """A photograph with each of Exif's orientations, 1 to 8."""
    return [_turned(photographs[0], number) for number in range(1, 9)]


@pytest.fixture(scope="session")
def odd_images(photographs: list[bytes]) -> dict[str, bytes]:
    """Images that a JPEG engine refuses, or may not be trusted with."""
    matrix = cv2.imdecode(np.frombuffer(photographs[0], np.uint8), cv2.IMREAD_COLOR)
    grey = cv2.cvtColor(matrix, cv2.COLOR_BGR2GRAY)

    def encoded(suffix: str, image: np.ndarray, *flags: int) -> bytes:
        return cv2.imencode(suffix, image, flags)[1].tobytes()

    return {
        "progressive": encoded(".jpg", matrix, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        "grey": encoded(".jpg", grey),
        "png": encoded(".png", matrix),
        "4:4:4": encoded(
            ".jpg",
            matrix,
            cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
            cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
        ),
        "restart markers": encoded(".jpg", matrix, cv2.IMWRITE_JPEG_RST_INTERVAL, 4),
        "odd size": encoded(".jpg", matrix[:201, :133]),
        "one pixel": encoded(".jpg", matrix[:1, :1]),
        "turned": _turned(encoded(".jpg", matrix)),
    }
