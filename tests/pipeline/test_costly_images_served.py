"""Who asks for a usual image does not wait for those who ask for costly ones.

A backend keeps red images, which are the costly ones, until the test lets them go on.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from engine.cpu.cores import available_cores
from idl import inference
from service.handler_calls import COSTLY_WORK
from service.images.cost import image_cost
from tests.robustness.colour_model import LABELS, SIDE, write_colour_model
from tests.serving import TIMEOUT_S, connect, service

BACKEND = """
import os
from pipeline import register_backend

@register_backend
class Kept:
    def init(self, config):
        self.told, self.steps = (os.open(PATH + name, os.O_RDWR) for name in ("told", "steps"))

    def forward(self, items):
        for item in items:
            if int(item["data"].float().mean((0, 2, 3)).argmax()) == 0:
                os.write(self.told, b"r")
                os.read(self.steps, 1)
            item["result"] = item["data"]
"""
CONFIG = """
[decoder]
backend = "S[DecodeMat,ResizeMat,cvtColorMat,Mat2Tensor,Kept]"
resize_h = {side}
resize_w = {side}
color = "rgb"
instance_num = {cores}
next = "model"
[model]
backend = "TensorrtTensor"
model = "{model}"
mean = "0, 0, 0"
std = "255, 255, 255"
max = "1x3x{side}x{side}"
instance_num = 1
"""
FREE_STEPS = 4096
CALLS = 3
# More than can be at work at the same time.
OF_A_CALL = max(4, available_cores() // CALLS + 2)


def png(label: str, side: int) -> bytes:
    pixels = np.full((side, side, 3), 10, np.uint8)
    pixels[:, :, 2 - LABELS.index(label)] = 200
    return cv2.imencode(".png", pixels)[1].tobytes()


COSTLY, USUAL = png("red", 1300), png("blue", 20)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, int, int]]:
    """The port, and the pipes on which images are told of and let go on."""
    folder = tmp_path_factory.mktemp("costly")
    colours = write_colour_model(folder)
    for name in ("told", "steps"):
        os.mkfifo(folder / name)
    told, steps = (os.open(folder / name, os.O_RDWR) for name in ("told", "steps"))
    (folder / "graph.toml").write_text(
        CONFIG.format(model=colours.model, side=SIDE, cores=available_cores())
    )
    (folder / "kept.py").write_text(f"PATH = {str(folder) + '/'!r}\n{BACKEND}")
    options = ["--handler", "pipeline", "--labels", str(colours.labels)]
    options += ["--config", str(folder / "graph.toml"), "--backends", str(folder / "kept.py")]
    # The images of the warm-up are let go on.
    os.write(steps, b"." * FREE_STEPS)
    with service(*options) as (port, _):
        for pipe in (told, steps):
            os.set_blocking(pipe, False)
            with contextlib.suppress(BlockingIOError):
                while os.read(pipe, 65_536):
                    pass
            os.set_blocking(pipe, True)
        yield port, told, steps
        os.write(steps, b"." * FREE_STEPS)
    for pipe in (told, steps):
        os.close(pipe)


def classify(port: int, images: list[bytes]) -> list[str]:
    client = connect(port)
    try:
        requests = [inference.InferenceParams(str(i), image) for i, image in enumerate(images)]
        return [result.label for result in client.infer_images(requests)]
    finally:
        client.close()


def test_the_images_cost_what_they_are_meant_to() -> None:
    costly, usual = image_cost(COSTLY), image_cost(USUAL)
    assert costly is not None
    assert usual is not None
    assert usual.work < COSTLY_WORK < costly.work


@pytest.mark.skipif(available_cores() < 2, reason="there is no core to leave to others")
def test_costly_images_leave_an_instance_to_the_others(served: tuple[int, int, int]) -> None:
    port, told, steps = served
    images = [COSTLY, USUAL, b"none", *[COSTLY] * (OF_A_CALL - 1)]
    labels = ["red", "blue", "", *["red"] * (OF_A_CALL - 1)]
    with ThreadPoolExecutor(CALLS) as pool:
        bulk = [pool.submit(classify, port, images) for _ in range(CALLS)]
        # As many costly ones as there may be have come, and stay.
        for _ in range(available_cores() - 1):
            assert os.read(told, 1)
        for _ in range(20):
            assert classify(port, [USUAL]) == ["blue"]
        os.write(steps, b"." * CALLS * OF_A_CALL)
        for call in bulk:
            assert call.result(TIMEOUT_S) == labels
