"""Resident memory of a real server, against --max-buffered-bytes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from idl import inference
from tests.process_memory import proportional_bytes
from tests.serving import connect

MIB = 2**20
MAX_FRAME_BYTES = 6 * MIB
LIMIT_BYTES = 24 * MIB
OPTIONS = (
    *("-m", "service", "--handler", "pipeline", "--port", "0", "--workers", "1"),
    *("--max-frame-bytes", str(MAX_FRAME_BYTES), "--max-buffered-bytes", str(LIMIT_BYTES)),
    # On a busy host calls of 200 images would be refused for the time that they wait.
    *("--max-queue-ms", "0"),
)
# Stands where the pipeline's handler is looked for. Calls whose image is b"wait..." report by one
# FIFO, and wait for another; images b"bad..." are none, as handlers say it.
BLOCKING_HANDLER = """
from service.handlers.outcomes import InvalidImageError
from service.handlers.null import NullHandler

def decoded(item):
    try:
        raise InvalidImageError("no image at all")
    except InvalidImageError as error:
        item["error"] = error

class BlockingHandler(NullHandler):
    def classify(self, images, deadline):
        if images[0].startswith(b"wait"):
            with open("entered", "wb", buffering=0) as entered:
                entered.write(b"x")
            open("release", "rb").close()
        if images[0].startswith(b"bad"):
            items = [{"data": image} for image in images]
            for item in items:
                decoded(item)
            return [item["error"] for item in items]
        return super().classify(images, deadline)

def create_handler(settings):
    return BlockingHandler()
"""


@pytest.fixture
def server(start: Callable[..., Any], tmp_path: Path) -> Iterator[tuple[int, int]]:
    """Port and process id."""
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline" / "__init__.py").touch()
    (tmp_path / "pipeline" / "handler.py").write_text(BLOCKING_HANDLER, encoding="utf-8")
    for name in ("entered", "release"):
        os.mkfifo(tmp_path / name)
    started = start(*OPTIONS)
    yield started.port(), started.process.pid
    started.process.terminate()
    assert started.wait() == 0


def image_of(size_bytes: int) -> Any:
    return inference.InferenceParams("u", bytes(size_bytes))


@pytest.mark.parametrize("size_bytes", [100_000, MIB])
def test_connections_that_have_sent_much_keep_little(
    server: tuple[int, int], size_bytes: int
) -> None:
    """Beyond what each connection has anyway."""
    port, pid = server
    with ExitStack() as stack, ThreadPoolExecutor(4) as pool:
        clients = [stack.enter_context(closing(connect(port))) for _ in range(200)]
        list(pool.map(lambda client: client.infer_batch(image_of(10_000)), clients))
        before_bytes = proportional_bytes(pid)
        list(pool.map(lambda client: client.infer_batch(image_of(size_bytes)), clients))
        grown_bytes = proportional_bytes(pid) - before_bytes
    assert grown_bytes < LIMIT_BYTES * 5 // 4


@pytest.mark.parametrize("transport", ["framed", "unframed"])
@pytest.mark.parametrize(("images", "size_bytes"), [(1, 6_000_000), (16, 370_000), (200, 30_000)])
def test_calls_at_work_take_what_the_limit_says(
    server: tuple[int, int], tmp_path: Path, images: int, size_bytes: int, transport: str
) -> None:
    """As many as there is room for; the others are refused."""
    port, pid = server
    calls = [image_of(size_bytes) for _ in range(images)]
    calls[0] = inference.InferenceParams("u", b"wait" + bytes(size_bytes))
    entered = os.open(tmp_path / "entered", os.O_RDWR)
    with ExitStack() as stack, ThreadPoolExecutor(8) as pool:
        stack.callback(os.close, entered)
        clients = [stack.enter_context(closing(connect(port, transport))) for _ in range(8)]
        for client in clients:
            client.infer_batch(image_of(10_000))
        before_bytes = proportional_bytes(pid)
        at_work = []
        for client in clients:
            call = pool.submit(client.infer_images, calls)
            call.add_done_callback(lambda _: os.write(entered, b"refused"))
            if os.read(entered, len(b"refused")) == b"x":
                at_work.append(call)
            else:
                with pytest.raises(inference.Overloaded):
                    call.result()
        grown_bytes = proportional_bytes(pid) - before_bytes
        # A thread that waits for a writer has one now.
        release = os.open(tmp_path / "release", os.O_RDWR)
        assert [len(call.result()) for call in at_work] == [images] * len(at_work)
        os.close(release)
    assert 3 <= len(at_work) < len(clients)
    assert grown_bytes < LIMIT_BYTES * 5 // 4


@pytest.mark.parametrize("method", ["infer_batch", "infer_images", "too_many"])
def test_calls_that_fail_leave_nothing(server: tuple[int, int], method: str) -> None:
    """Before the garbage collector comes by."""
    port, pid = server
    bad = inference.InferenceParams("u", b"bad" + bytes(5_000_000))
    with closing(connect(port)) as client:
        client.infer_batch(image_of(10_000))
        before_bytes = proportional_bytes(pid)
        for _ in range(8):
            if method == "infer_images":
                assert client.infer_images([bad])[0].error.message == "no image at all"
            elif method == "infer_batch":
                with pytest.raises(inference.InvalidImage):
                    client.infer_batch(bad)
            else:
                with pytest.raises(inference.InvalidRequest, match="--max-images-per-call"):
                    client.infer_images([bad] + [image_of(1)] * 256)
        client.ping()
        grown_bytes = proportional_bytes(pid) - before_bytes
    assert grown_bytes < LIMIT_BYTES // 2
