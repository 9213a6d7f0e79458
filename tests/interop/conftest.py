"""One server for all clients, what it is asked, and the answer that thriftpy2 gets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.image_models import save_linear_classifier
from tests.interop.python_clients import ThriftpyClient
from tests.interop.scenario import Report, report_of
from tests.serving import service

# Each resize keeps what a colour's share of an image is.
CONFIG = """
[asked]
backend = "TestAsked"
instance_num = 2
next = "decoder"

[decoder]
backend = "S[DecodeMat,ResizeMat,cvtColorMat,Mat2Tensor]"
resize_h = 8
resize_w = 8
next = "model"

[model]
backend = "TensorrtTensor"
model = "{model}"
mean = "0, 0, 0"
std = "1, 1, 1"
"""


@pytest.fixture(scope="session")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a server that tells red, green and blue images apart."""
    folder = tmp_path_factory.mktemp("interop-server")
    # A class for each channel, whose mean is 0 to 255.
    save_linear_classifier(folder / "colours.onnx", 0.01 * np.eye(3, dtype=np.float32), 8)
    (folder / "colours.toml").write_text(CONFIG.format(model=folder / "colours.onnx"))
    (folder / "labels.txt").write_text("red\ngreen\nblau, in UTF-8: größer\n", encoding="utf-8")
    backends = str(Path(__file__).parent / "backends.py")
    config, labels = str(folder / "colours.toml"), str(folder / "labels.txt")
    arguments = ("--config", config, "--labels", labels, "--backends", backends)
    with service("--handler", "pipeline", *arguments, "--max-queue", "20") as (port, _):
        yield port


@pytest.fixture(scope="session")
def images() -> list[bytes]:
    """A red and a green image, and a blue one of several megabytes."""
    small = np.zeros((48, 64, 3), np.uint8)
    red, green = small.copy(), small.copy()
    red[:, :, 2] = 200
    green[:, :, 1] = 200
    noise = np.random.default_rng(seed=1).integers(0, 64, (1200, 1600, 3), dtype=np.uint8)
    noise[:, :, 0] += 190
    fast = [cv2.IMWRITE_PNG_COMPRESSION, 1]
    encoded = [
        cv2.imencode(".jpg", red)[1].tobytes(),
        cv2.imencode(".png", green)[1].tobytes(),
        cv2.imencode(".png", noise, fast)[1].tobytes(),
    ]
    assert len(encoded[2]) > 4_000_000
    return encoded


@pytest.fixture(scope="session")
def image_files(images: Sequence[bytes], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The images as files."""
    folder = tmp_path_factory.mktemp("interop-images")
    paths = [folder / f"{number}.image" for number in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        path.write_bytes(image)
    return [str(path) for path in paths]


@pytest.fixture(scope="session")
def expected(port: int, images: Sequence[bytes]) -> Report:
    """What thriftpy2 reports."""
    client, other = ThriftpyClient(port), ThriftpyClient(port)
    report = report_of(client, other, images)
    client.close()
    other.close()
    return report
