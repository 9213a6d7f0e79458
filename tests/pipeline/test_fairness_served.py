"""One who asks for a single image does not wait for those who ask for many.

The engine runs one image at a time, for each byte that the test writes; it says whose that was.
"""

from __future__ import annotations

import os
import select
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from idl import inference
from tests.robustness.colour_model import LABELS, SIDE, write_colour_model
from tests.serving import TIMEOUT_S, connect, service

BACKENDS = """
import os
from pipeline import register_backend

def mark(item):
    return b"rgb"[int(item["data"].float().mean((0, 2, 3)).argmax()):][:1]

class Told:
    def init(self, config):
        self.told, self.steps = (os.open(PATH + name, os.O_RDWR) for name in (self.name, "steps"))

    def forward(self, items):
        for item in items:
            if self.waits:
                os.read(self.steps, 1)
            os.write(self.told, mark(item))
            item["result"] = item["data"]

@register_backend
class Decoded(Told):
    name, waits = "decoded", False

@register_backend
class Stepped(Told):
    name, waits = "ran", True
"""
CONFIG = """
[decoder]
backend = "S[DecodeMat,ResizeMat,cvtColorMat,Mat2Tensor,Decoded]"
resize_h = {side}
resize_w = {side}
color = "rgb"
instance_num = 2
next = "model"
[model]
backend = "S[Stepped,TensorrtTensor]"
model = "{model}"
mean = "0, 0, 0"
std = "255, 255, 255"
max = "1x3x{side}x{side}"
instance_num = 1
"""
BULK = 24
# Warm-up, by the service itself.
FREE_STEPS = 4096


def png(label: str) -> bytes:
    pixels = np.full((9, 9, 3), 10, np.uint8)
    pixels[:, :, 2 - LABELS.index(label)] = 200
    return cv2.imencode(".png", pixels)[1].tobytes()


class Fifo:
    """A named pipe, of which no end is ever missing."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)

    def read(self, count: int = 1) -> str:
        """So many bytes, waiting for them."""
        read = b""
        while len(read) < count:
            assert select.select([self.fd], [], [], TIMEOUT_S)[0], read
            read += os.read(self.fd, count - len(read))
        return read.decode()

    def empty(self) -> None:
        while select.select([self.fd], [], [], 0)[0]:
            os.read(self.fd, 65536)


class Served:
    """A server whose engine takes steps."""

    def __init__(self, port: int, fifos: Sequence[Fifo]) -> None:
        self.port = port
        self.decoded, self.steps, self.ran = fifos

    def classify(self, label: str, count: int) -> list[str]:
        client = connect(self.port)
        try:
            image = png(label)
            requests = [inference.InferenceParams(str(i), image) for i in range(count)]
            return [result.label for result in client.infer_images(requests)]
        finally:
            client.close()

    def step(self) -> str:
        """Let the engine run one image: whose."""
        os.write(self.steps.fd, b".")
        return self.ran.read()


@pytest.fixture(scope="module", params=["alone", "engine process"])
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("fairness")
    colours = write_colour_model(folder)
    fifos = [Fifo(folder / name) for name in ("decoded", "steps", "ran")]
    (folder / "graph.toml").write_text(CONFIG.format(model=colours.model, side=SIDE))
    (folder / "steps.py").write_text(f"PATH = {str(folder) + '/'!r}\n{BACKENDS}")
    options = ["--handler", "pipeline", "--labels", str(colours.labels), "--max-queue-ms", "0"]
    options += ["--config", str(folder / "graph.toml")]
    options += ["--backends", str(folder / "steps.py")]
    if request.param == "engine process":
        options += ["--workers", "2", "--set", "shared_engine=always"]
    os.write(fifos[1].fd, b"." * FREE_STEPS)
    with service(*options) as (port, _):
        for fifo in fifos:
            fifo.empty()
        yield Served(port, fifos)
        os.write(fifos[1].fd, b"." * FREE_STEPS)
    for fifo in fifos:
        os.close(fifo.fd)


def test_a_single_image_passes_those_of_bulk_callers(served: Served) -> None:
    with ThreadPoolExecutor(5) as pool:
        bulk: list[Any] = [pool.submit(served.classify, "red", BULK) for _ in range(4)]
        # One is at the engine, and waits for a step of the test.
        served.decoded.read(4 * BULK)
        single = pool.submit(served.classify, "blue", 1)
        served.decoded.read(1)
        before = 0
        while served.step() == "r":
            before += 1
        assert single.result(TIMEOUT_S) == ["blue"]
        # The one at work, and those that leave before it has come from the decoder to the queue,
        # which takes its time on a busy machine; it would be all of them if they were served in
        # the order of their coming.
        assert before < 3 * BULK
        for _ in range(4 * BULK - before):
            served.step()
        for call in bulk:
            assert call.result(TIMEOUT_S) == ["red"] * BULK


def test_bulk_callers_take_turns(served: Served) -> None:
    """A caller of fewer images is done when it has had as many turns as the other one."""
    with ThreadPoolExecutor(2) as pool:
        large = pool.submit(served.classify, "red", BULK)
        served.decoded.read(BULK)
        small = pool.submit(served.classify, "green", BULK // 4)
        served.decoded.read(BULK // 4)
        ran = ""
        while ran.count("g") < BULK // 4:
            ran += served.step()
        assert small.result(TIMEOUT_S) == ["green"] * (BULK // 4)
        # As many, and the few that leave before the first of these is in the queue. The last two
        # may still be on their way there, from the two instances of the decoder.
        greens = [number for number, whose in enumerate(ran) if whose == "g"]
        assert ran[: greens[-3]].count("r") <= BULK // 2
        for _ in range(BULK - ran.count("r")):
            served.step()
        assert large.result(TIMEOUT_S) == ["red"] * BULK
