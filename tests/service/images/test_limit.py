"""Images of too many pixels are refused before any work; decoding keeps to its memory."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import pytest

from idl import inference
from service.handlers.warm_up import sample_jpeg
from service.images.limit import OPENCV_LIMIT_VARIABLE, ImageLimit, prepare_opencv
from tests.robustness.colour_model import write_colour_model
from tests.serving import connect, service

TIMEOUT_S = 30
Params = inference.InferenceParams
Code = inference.ErrorCode
LARGEST_SIDE = 65_535
MAX_PIXELS = 100_000
FORMATS = ("--image-formats", "jpeg,png,webp,bmp,pnm")


def jpeg_of(side: int) -> bytes:
    """A real JPEG, but for the size in its header."""
    data = bytearray(sample_jpeg())
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", side, side)
    return bytes(data)


def png_of(side: int) -> bytes:
    """A PNG whose header is right, and whose pixels end early."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1_000_000))
    start = b"\x89PNG\r\n\x1a\n"
    return start + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def pixmap_of(side: int) -> bytes:
    """A format whose size is text."""
    return b"P6 %d %d 255\n" % (side, side) + bytes(1000)


BOMBS = {"jpeg": jpeg_of, "png": png_of, "pixmap": pixmap_of}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny one."""
    return write_colour_model(tmp_path_factory.mktemp("model")).model


@pytest.fixture(scope="module")
def server(model: Path) -> Iterator[tuple[int, psutil.Process]]:
    """A pipeline: the port, and the process that decodes."""
    arguments = ("--handler", "pipeline", "--model", str(model), "--engine", "onnxruntime")
    with service(*arguments, "--max-image-pixels", str(MAX_PIXELS), *FORMATS) as (port, process):
        yield port, psutil.Process(process.pid)


def peak_bytes(process: psutil.Process) -> int:
    """The most memory that a process has had."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


@pytest.mark.parametrize("side", [30_000, LARGEST_SIDE])
def test_a_huge_header_costs_no_memory(server: tuple[int, psutil.Process], side: int) -> None:
    """Of 900 million pixels, OpenCV by itself would decode 2.5 GiB."""
    port, process = server
    client = connect(port)
    images = [sample_jpeg(), *(bomb(side) for bomb in BOMBS.values()), sample_jpeg()]
    client.infer_images([Params("u", sample_jpeg())] * 20)
    before_bytes = peak_bytes(process)
    for _ in range(5):
        results = client.infer_images([Params(str(i), data) for i, data in enumerate(images)])
        errors = [result.error for result in results]
        assert [error and error.code for error in errors] == [None, *[Code.INVALID_IMAGE] * 3, None]
    assert peak_bytes(process) - before_bytes < 32 * 2**20
    for error in errors[1:4]:
        assert error.message == (
            f"the image is {side} x {side}, which are {side**2} pixels; "
            f"--max-image-pixels allows {MAX_PIXELS}"
        )
    client.close()


def test_a_chunk_longer_than_its_file_costs_no_memory(server: tuple[int, psutil.Process]) -> None:
    """OpenCV by itself would take 2 GB for these 41 bytes."""
    port, process = server
    data = cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes()
    data = data[: data.index(b"IDAT") - 4] + b"\x7f\xff\xff\xffIDAT"
    client = connect(port)
    client.infer_images([Params("u", sample_jpeg())] * 20)
    before_bytes = peak_bytes(process)
    results = client.infer_images([Params("u", data), Params("v", sample_jpeg())])
    assert results[0].error.code == Code.INVALID_IMAGE
    assert results[0].error.message == (
        "the PNG is damaged: a chunk b'IDAT' of 2147483647 bytes is announced, and the file ends "
        "before that"
    )
    assert results[1].error is None
    assert peak_bytes(process) - before_bytes < 32 * 2**20
    client.close()


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".ppm"])
def test_the_limit_is_the_last_size_that_is_decoded(
    server: tuple[int, psutil.Process], suffix: str
) -> None:
    client = connect(server[0])
    for height, is_taken in ((200, True), (201, False)):
        image = np.zeros((height, MAX_PIXELS // 200, 3), np.uint8)
        params = Params("u7", cv2.imencode(suffix, image)[1].tobytes())
        if is_taken:
            assert client.infer_batch(params).label
        else:
            with pytest.raises(inference.InvalidImage, match="--max-image-pixels") as caught:
                client.infer_batch(params)
            assert caught.value.uuid == "u7"
    client.close()


def test_an_image_of_too_many_pixels_reaches_no_handler(
    scripted_server: Any, scripted: Any
) -> None:
    client = scripted_server.client()
    images = [b"best=1", png_of(LARGEST_SIDE), b"best=2"]
    results = client.infer_images([Params("u", data) for data in images])
    assert [result.label for result in results] == ["class_1", "", "class_2"]
    assert results[1].error.code == Code.INVALID_IMAGE
    calls = len(scripted.deadlines)
    with pytest.raises(inference.InvalidImage, match=f"{LARGEST_SIDE**2} pixels"):
        client.infer_batch(Params("u", jpeg_of(LARGEST_SIDE)))
    assert len(scripted.deadlines) == calls
    client.close()


@pytest.mark.parametrize("handler", ["baseline", "pipeline"])
def test_images_decoded_at_once_take_no_more_memory_than_is_allowed(
    handler: str, model: Path
) -> None:
    """Each takes 97 MB: one at a time, however many calls there are. What is larger is refused."""
    image = cv2.imencode(".jpg", np.zeros((4000, 4000, 3), np.uint8))[1].tobytes()
    larger = cv2.imencode(".jpg", np.zeros((4100, 4200, 3), np.uint8))[1].tobytes()
    arguments = ("--handler", handler, "--model", str(model), "--engine", "onnxruntime")
    with service(*arguments, "--max-decoded-bytes", "100000000") as (port, started):
        process = psutil.Process(started.pid)
        clients = [connect(port) for _ in range(4)]
        for client in clients:
            client.infer_batch(Params("u", sample_jpeg()))
        before_bytes = peak_bytes(process)

        def ask(client: Any) -> list[Any]:
            return client.infer_images([Params("u", image)] * 3)

        with ThreadPoolExecutor(len(clients)) as pool:
            for results in pool.map(ask, clients):
                assert [result.error for result in results] == [None] * 3
        assert peak_bytes(process) - before_bytes < 150_000_000
        with pytest.raises(inference.InvalidImage, match="--max-decoded-bytes allows 100000000"):
            clients[0].infer_batch(Params("u", larger))
        for client in clients:
            client.close()


def test_other_formats_are_refused_by_name(server: tuple[int, psutil.Process]) -> None:
    client = connect(server[0])
    image = cv2.imencode(".gif", np.zeros((8, 8, 3), np.uint8))[1].tobytes()
    with pytest.raises(inference.InvalidImage) as caught:
        client.infer_batch(Params("u", image))
    assert caught.value.message == (
        "the image is gif, and --image-formats allows jpeg, png, webp, bmp, pnm"
    )
    client.close()


def test_what_is_no_image_is_the_decoders_to_judge() -> None:
    limit = ImageLimit(1)
    assert limit.failure(b"no image") is None
    assert limit.failure(None) is None
    assert limit.failure(jpeg_of(1)) is None
    assert limit.failure(jpeg_of(2)) is not None


@pytest.mark.parametrize(
    ("given", "then"),
    [
        (None, "50000000"),
        ("1000000", "1000000"),
        ("1KB", "1024"),
        ("2Mb", "2097152"),
        ("99999999", "50000000"),
        ("99MB", "50000000"),
        ("", "50000000"),
    ],
)
def test_a_stricter_limit_of_opencvs_own_stays(given: str | None, then: str) -> None:
    environment = {} if given is None else {OPENCV_LIMIT_VARIABLE: given}
    prepare_opencv(50_000_000, environment)
    assert environment == {OPENCV_LIMIT_VARIABLE: then, "OPENCV_LOG_LEVEL": "FATAL"}
