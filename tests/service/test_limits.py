"""What a call may cost: pixels, images, and places in the queue; refused before any work."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import psutil
import pytest
from onnx import TensorProto, helper

from idl import inference
from service.image_limit import OPENCV_LIMIT_VARIABLE, ImageLimit, prepare_opencv
from service.warm_up import sample_jpeg
from tests.serving import connect, service

TIMEOUT_S = 30
Params = inference.InferenceParams
Code = inference.ErrorCode
LARGEST_SIDE = 65_535
MAX_PIXELS = 100_000


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
    """A format that OpenCV reads, and whose header nobody here does."""
    return b"P6 %d %d 255\n" % (side, side) + bytes(1000)


BOMBS = {"jpeg": jpeg_of, "png": png_of, "pixmap": pixmap_of}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, psutil.Process]]:
    """A pipeline, with a tiny model: the port, and the process that decodes."""
    model = tmp_path_factory.mktemp("model") / "means.onnx"
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["image"], ["means"]),
            helper.make_node("Flatten", ["means"], ["logits"]),
        ],
        "means",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 3])],
    )
    opset = helper.make_opsetid("", 17)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=10), model)
    arguments = ("--handler", "pipeline", "--model", str(model), "--engine", "onnxruntime")
    with service(*arguments, "--max-image-pixels", str(MAX_PIXELS)) as (port, process):
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
    for error in errors[1:3]:
        assert error.message == (
            f"the image is {side} x {side}, which are {side**2} pixels; "
            f"--max-image-pixels allows {MAX_PIXELS}"
        )
    assert f"more pixels than the {MAX_PIXELS} that OpenCV may decode" in errors[3].message
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


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".ppm", ".tiff"])
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


def test_an_image_without_a_size_is_the_decoders_to_judge() -> None:
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


def test_a_call_of_too_many_images_is_refused(serve: Any, scripted: Any) -> None:
    client = serve(scripted, max_images_per_call=3).client()
    calls = len(scripted.deadlines)
    with pytest.raises(inference.InvalidRequest) as caught:
        client.infer_images([Params("u", b"x")] * 4)
    assert caught.value.message == (
        "the call has 4 images, --max-images-per-call allows 3; split it"
    )
    assert len(scripted.deadlines) == calls
    assert len(client.infer_images([Params("u", b"x")] * 3)) == 3
    client.close()


def test_images_beyond_the_queue_are_refused_at_once(serve: Any, scripted: Any) -> None:
    """The refused client learns when to retry; the admitted ones are not disturbed."""
    server = serve(scripted, max_queue=1)
    first, second = server.client(), server.client()
    with ThreadPoolExecutor(1) as pool:
        # The scripted handler works on one image at once, so that the other one waits.
        requests = [Params("u", b"wait"), Params("u", b"best=2")]
        admitted = pool.submit(first.infer_images, requests)
        assert scripted.entered.acquire(timeout=TIMEOUT_S)
        calls = len(scripted.deadlines)
        for refused in (
            lambda: second.infer_batch(Params("u", b"x")),
            lambda: second.infer_images([Params("u", b"x")]),
        ):
            with pytest.raises(inference.Overloaded) as caught:
                refused()
            assert caught.value.message == (
                "1 images wait already, and --max-queue allows 1 here; 1 more do not fit"
            )
            assert 10 <= caught.value.retry_after_ms <= 10_000
        with pytest.raises(inference.InvalidRequest, match="a call of 3 images never fits"):
            second.infer_images([Params("u", b"x")] * 3)
        second.ping()
        assert len(scripted.deadlines) == calls
        scripted.release.set()
        labels = [result.label for result in admitted.result(TIMEOUT_S)]
    assert labels == ["class_0", "class_2"]
    assert second.infer_batch(Params("u", b"x")).label == "class_0", "the places are free again"
    first.close()
    second.close()
