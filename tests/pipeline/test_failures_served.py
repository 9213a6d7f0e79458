"""An engine that fails on command in a real server, alone and in an engine process for two workers.

The backend that fails comes from a file of the user's own, `--backends`, and stands in one node
with the real engine.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from idl import inference
from tests.serving import TIMEOUT_S, connect, service

BACKENDS = """
from pathlib import Path
from pipeline import register_backend

BROKEN = Path({broken!r})

@register_backend
class Flaky:
    def forward(self, items):
        if BROKEN.exists():
            raise RuntimeError("the engine is broken")
        for item in items:
            if not item["data"].any():
                raise RuntimeError("a black image is poison")
            item["result"] = item["data"]

    def max(self):
        return 4
"""
CONFIG = """
[decoder]
backend = "S[DecodeMat,ResizeMat,cvtColorMat,Mat2Tensor]"
resize_h = 8
resize_w = 8
next = "model"
[model]
backend = "S[Flaky,TensorrtTensor]"
model = "{model}"
max = "4x3x8x8"
instance_num = 2
"""
INTERNAL = inference.ErrorCode.INTERNAL


def png(red: int, green: int, blue: int) -> bytes:
    return cv2.imencode(".png", np.full((9, 9, 3), (blue, green, red), np.uint8))[1].tobytes()


RED, BLACK, BLUE = png(200, 10, 10), png(0, 0, 0), png(10, 10, 200)


@dataclass
class Served:
    """A running server.

    Attributes:
        clients: one for each of its workers.
        broken: while this file is there, every call of the engine's node raises.
    """

    clients: list[Any]
    broken: Path

    def classify(self, *images: bytes, client: int = 0) -> list[Any]:
        """Labels, or error codes."""
        requests = [inference.InferenceParams(str(i), data) for i, data in enumerate(images)]
        results = self.clients[client].infer_images(requests, None)
        return [r.label if r.error is None else r.error.code for r in results]

    def wait_until(self, *, ready: bool) -> list[str]:
        """Classify until health says so of every worker; the reasons."""
        end_s = time.monotonic() + TIMEOUT_S
        while True:
            healths = [client.health() for client in self.clients]
            if all(health.ready == ready for health in healths):
                return [health.reason for health in healths]
            assert time.monotonic() < end_s, healths
            if not ready:
                assert self.classify(RED) == [INTERNAL]


@pytest.fixture(scope="module", params=["alone", "engine process"])
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
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
    workers = 1
    if request.param == "engine process":
        workers = 2
        options += ["--workers", "2", "--set", "shared_engine=always"]
    with service(*options) as (port, _):
        clients = [connect(port) for _ in range(workers)]
        yield Served(clients, folder / "broken")
        for client in clients:
            client.close()


def test_neighbours_of_a_poisonous_image_are_answered(served: Served) -> None:
    images = [RED, BLACK, BLUE, BLUE, b"no image"] * 4
    expected = ["red", INTERNAL, "blue", "blue", inference.ErrorCode.INVALID_IMAGE] * 4
    assert served.classify(*images) == expected
    assert all(client.health().ready for client in served.clients)


def test_health_follows_an_engine_that_breaks_and_comes_back(served: Served) -> None:
    served.wait_until(ready=True)
    served.broken.touch()
    try:
        for reason in served.wait_until(ready=False):
            assert "node 'model' has no working instance since 20" in reason
            assert "(RuntimeError: the engine is broken); it is being rebuilt" in reason
        # Nobody waits for it: all are told at once, by every worker.
        for number in range(len(served.clients)):
            assert served.classify(RED, BLUE, client=number) == [INTERNAL] * 2
    finally:
        served.broken.unlink()
    assert set(served.wait_until(ready=True)) == {""}
    for number, client in enumerate(served.clients):
        assert served.classify(RED, BLUE, client=number) == ["red", "blue"]
        settings = client.server_info().settings
        if settings["engine_process"] == "none":
            assert int(settings["model.rebuilds"]) >= 1
            assert int(settings["model.working_instances"]) >= 1
