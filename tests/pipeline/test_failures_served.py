"""An engine that fails on command in a real server, alone and in an engine process for two workers.

The backend that fails comes from a file of the user's own, `--backends`, and is in one node
with the real engine.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import psutil
import pytest
from onnx import TensorProto, helper, numpy_helper

from idl import inference
from tests.serving import TIMEOUT_S, connect, service
from tests.waiting import wait_until

BACKENDS = """
import ctypes
import os
import signal
from pathlib import Path
import torch
from pipeline import register_backend

BROKEN = Path({broken!r})
HANG = BROKEN.with_name("hang")

class Panic(BaseException):
    pass

@register_backend
class AsBfloat16:
    def forward(self, items):
        for item in items:
            item["result"] = item["data"].to(torch.bfloat16)
            if item["data"].max() == 13:
                item["result"] = item["result"].to_sparse()

@register_backend
class WithGradient:
    def forward(self, items):
        for item in items:
            item["result"] = item["data"].clone().requires_grad_()
            if item["data"].max() == 9 or BROKEN.with_name("wordy").exists():
                item["result"] = "no scores"
            if item["data"].max() == 11:
                item["error"] = 5

@register_backend
class Flaky:
    def init(self, config):
        if BROKEN.with_name("slow").exists():
            # As a native library that loads a model, with the interpreter's lock.
            ctypes.PyDLL(None).sleep(4)

    def forward(self, items):
        if BROKEN.exists():
            raise RuntimeError("the engine is broken")
        for item in items:
            if not item["data"].any():
                raise RuntimeError("a black image is poison")
            if HANG.exists() and item["data"][0, 1].min() > 100 > item["data"][0, 0].max():
                HANG.read_bytes()
            if item["data"].max() == 7:
                os.kill(os.getpid(), signal.SIGKILL)
            if item["data"].min() == 255:
                raise Panic("a white image, too")
            item["result"] = item["data"].to(torch.uint8)

    def max(self):
        return 4
"""
CONFIG = """
[decoder]
backend = "S[DecodeMat,ResizeMat,cvtColorMat,Mat2Tensor,AsBfloat16]"
resize_h = 8
resize_w = 8
next = "model"
[model]
backend = "S[Flaky,TensorrtTensor,WithGradient]"
model = "{model}"
max = "4x3x8x8"
instance_num = 2
"""
INTERNAL = inference.ErrorCode.INTERNAL


def png(red: int, green: int, blue: int) -> bytes:
    return cv2.imencode(".png", np.full((9, 9, 3), (blue, green, red), np.uint8))[1].tobytes()


RED, BLACK, BLUE = png(200, 10, 10), png(0, 0, 0), png(10, 10, 200)
GREEN, WHITE, DEADLY = png(10, 200, 10), png(255, 255, 255), png(7, 7, 7)
# What the last backend makes of these is no scores, and an outcome that is none.
WORD, NO_OUTCOME = png(9, 9, 9), png(11, 10, 10)
# The first one's tensor of this has no memory of its own.
SPARSE = png(13, 12, 12)


NO_SCORES = (
    "the result is no scores: expected a tensor of one row of scores for each image, got str"
)


@dataclass
class Served:
    """A running server.

    Attributes:
        clients: one for each of its workers.
        broken: while this file is there, every call of the engine's node raises.
        process: the server's.
        port: the server's.
    """

    clients: list[Any]
    broken: Path
    process: psutil.Process
    port: int

    def engine_pids(self) -> list[int]:
        """Process ids of its engine processes."""
        return [
            process.pid
            for process in self.process.children(recursive=True)
            if process.status() != psutil.STATUS_ZOMBIE
            and "pipeline.engine_server" in process.cmdline()
        ]

    def classify(self, *images: bytes, client: int = 0) -> list[Any]:
        """Labels, or error codes."""
        requests = [inference.InferenceParams(str(i), data) for i, data in enumerate(images)]
        results = self.clients[client].infer_images(requests, None)
        return [r.label if r.error is None else r.error.code for r in results]

    def wait_until(self, *, ready: bool) -> list[str]:
        """Wait until health says so of every worker, after calls that fail; the reasons."""
        healths: list[Any] = []

        def all_say_so() -> bool:
            healths[:] = [client.health() for client in self.clients]
            if all(health.ready == ready for health in healths):
                return True
            assert ready or self.classify(RED) == [INTERNAL]
            return False

        wait_until(all_say_so)
        return [health.reason for health in healths]


def write_files(folder: Path) -> list[str]:
    """The model, its graph and the backends; the options that name them."""
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["input"], ["pooled"]),
            helper.make_node("Reshape", ["pooled", "shape"], ["output"]),
        ],
        "channel_means",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(np.array([-1, 3], np.int64), "shape")],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(proto, folder / "channels.onnx")
    (folder / "graph.toml").write_text(CONFIG.format(model=folder / "channels.onnx"))
    (folder / "flaky.py").write_text(BACKENDS.format(broken=str(folder / "broken")))
    (folder / "labels.txt").write_text("red\ngreen\nblue\n")
    options = ["--handler", "pipeline", "--engine", "onnxruntime"]
    for option, name in (
        ("--config", "graph.toml"),
        ("--backends", "flaky.py"),
        ("--labels", "labels.txt"),
    ):
        options += [option, str(folder / name)]
    return options


@pytest.fixture(scope="module", params=["alone", "engine process"])
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    options = write_files(folder)
    # On a busy machine two new engine processes take longer than a call may by default.
    options += ["--hang-timeout-s", "3", "--default-timeout-ms", str(TIMEOUT_S * 1000)]
    workers = 1
    if request.param == "engine process":
        workers = 2
        options += ["--workers", "2", "--set", "shared_engine=always"]
    with service(*options) as (port, process):
        clients = [connect(port) for _ in range(workers)]
        yield Served(clients, folder / "broken", psutil.Process(process.pid), port)
        for client in clients:
            client.close()


def test_neighbours_of_a_poisonous_image_are_answered(served: Served) -> None:
    images = [RED, BLACK, BLUE, WHITE, BLUE, b"no image"] * 4
    expected = ["red", INTERNAL, "blue", INTERNAL, "blue", inference.ErrorCode.INVALID_IMAGE] * 4
    assert served.classify(*images) == expected
    assert all(client.health().ready for client in served.clients)


def test_what_a_backend_gives_instead_of_scores_fails_that_image(served: Served) -> None:
    assert served.classify(RED, WORD, NO_OUTCOME, BLUE) == ["red", INTERNAL, "red", "blue"]


@pytest.mark.parametrize("poison", [WORD, BLACK, WHITE], ids=["no scores", "error", "panic"])
def test_a_client_whose_images_all_fail_takes_no_node_from_the_others(
    served: Served, poison: bytes
) -> None:
    served.wait_until(ready=True)
    for _ in range(8):
        assert served.classify(*[poison] * 2) == [INTERNAL] * 2
        assert all(client.health().ready for client in served.clients)
    assert served.classify(RED, BLUE, client=len(served.clients) - 1) == ["red", "blue"]


def test_health_says_that_nothing_comes_out_but_what_is_no_scores(served: Served) -> None:
    served.wait_until(ready=True)
    wordy = served.broken.with_name("wordy")
    wordy.touch()
    try:
        for reason in served.wait_until(ready=False):
            assert "node 'model' has no working instance since 20" in reason
            assert f"(TypeError: {NO_SCORES})" in reason
    finally:
        wordy.unlink()
    assert set(served.wait_until(ready=True)) == {""}
    assert served.classify(RED, BLUE) == ["red", "blue"]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_start_that_gives_what_is_no_scores_ends_with_one_line(
    tmp_path: Path, workers: str
) -> None:
    options = write_files(tmp_path)
    (tmp_path / "wordy").touch()
    command = [sys.executable, "-m", "service", "--port", "0", *options, "--workers", workers]
    command += ["--set", "shared_engine=always", "--calibrate", "off"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert ended.returncode == 2
    (error,) = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert f"cannot classify the warm-up image: node 'model': {NO_SCORES}" in error
    assert "Traceback" not in ended.stderr


def test_a_tensor_that_cannot_be_handed_over_fails_alone(served: Served) -> None:
    assert served.classify(RED, SPARSE, BLUE, BLUE) == ["red", INTERNAL, "blue", "blue"]
    assert all(client.health().ready for client in served.clients)


def test_health_follows_an_engine_that_breaks_and_comes_back(served: Served) -> None:
    served.wait_until(ready=True)
    engine_pids = served.engine_pids()
    slow = served.broken.with_name("slow")
    if engine_pids:
        slow.touch()
    served.broken.touch()
    try:
        for reason in served.wait_until(ready=False):
            assert "node 'model' has no working instance since 20" in reason
            assert "(RuntimeError: the engine is broken); it is being rebuilt" in reason
        # No request waits for it: every worker answers at once.
        for number in range(len(served.clients)):
            assert served.classify(RED, BLUE, client=number) == [INTERNAL] * 2
    finally:
        served.broken.unlink()
    assert set(served.wait_until(ready=True)) == {""}
    slow.unlink(missing_ok=True)
    # That it was loading for longer than --hang-timeout-s was no reason to kill it.
    assert served.engine_pids() == engine_pids
    for number, client in enumerate(served.clients):
        assert served.classify(RED, BLUE, client=number) == ["red", "blue"]
        settings = client.server_info().settings
        if settings["engine_process"] == "none":
            assert int(settings["model.rebuilds"]) >= 1
            assert int(settings["model.working_instances"]) >= 1


def test_health_says_that_no_instance_gets_on(served: Served) -> None:
    served.wait_until(ready=True)
    hang = served.broken.with_name("hang")
    os.mkfifo(hang)

    def call(_: int) -> str:
        client = connect(served.port)
        result = client.infer_batch(inference.InferenceParams("green", GREEN))
        client.close()
        return str(result.label)

    # More than one instance's batch holds, so that both have one that waits for the FIFO's writer.
    with ThreadPoolExecutor(6) as callers:
        calls = callers.map(call, range(6))
        try:
            wait_until(lambda: not any(client.health().ready for client in served.clients))
            for health in [client.health() for client in served.clients]:
                assert (
                    "node 'model': each of its 2 instances in service has been at" in health.reason
                )
            if not served.engine_pids():
                settings = served.clients[0].server_info().settings
                assert settings["model.stuck_instances"] == "2"
        finally:
            writer = hang.open("wb")
            hang.unlink()
            writer.close()
        assert list(calls) == ["green"] * 6
    assert set(served.wait_until(ready=True)) == {""}


def test_an_image_that_ends_the_engine_process_takes_no_other_with_it(served: Served) -> None:
    if not served.engine_pids():
        pytest.skip("there is no engine process")
    images = [RED, BLUE, DEADLY, RED, BLUE, BLUE, RED]
    requests = [inference.InferenceParams(str(i), data) for i, data in enumerate(images)]
    options = inference.InferOptions(timeout_ms=TIMEOUT_S * 1000)
    results = served.clients[0].infer_images(requests, options)
    failure = results.pop(2).error
    assert [r.label if r.error is None else r.error.message for r in results] == [
        *("red", "blue", "red", "blue", "blue", "red")
    ]
    assert failure.code == INTERNAL
    assert served.classify(RED, client=1) == ["red"]
