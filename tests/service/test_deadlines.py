"""How long a call may stay, and that abandoned calls are dropped: both handlers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import baseline_trt.preprocessing
from baseline_trt.handler import BaselineHandler
from baseline_trt.handler import create_handler as create_baseline
from idl import inference
from pipeline.backends.interface import ItemBackend
from pipeline.backends.registry import register
from pipeline.handler import create_handler as create_pipeline
from service.handlers.deadline import Deadline
from service.handlers.handler_settings import HandlerSettings
from service.handlers.interface import Handler
from service.handlers.outcomes import ImageFailure, Scores
from service.handlers.warm_up import sample_jpeg
from service.images.decoding import decode_bgr

TIMEOUT_S = 30
Params = inference.InferenceParams
Options = inference.InferOptions
Code = inference.ErrorCode
JPEG = sample_jpeg()

CONFIG = """
batching_timeout = 0
instance_num = 1
[decoder]
backend = "S[{before_decoding}DecodeMat,ResizeMat,cvtColorMat,Mat2Tensor]"
resize_h = 8
resize_w = 8
color = "rgb"
next = "model"
[model]
backend = "S[{before_inference}TensorrtTensor]"
max = "1x3x8x8"
"""


class Gate:
    """Where the work of a handler can be held up, once its server has started.

    Attributes:
        passed: how many images have come here since then.
    """

    def __init__(self) -> None:
        self.passed = 0
        self._entered = threading.Semaphore(0)
        self._open = threading.Event()
        self._open.set()

    def close(self) -> None:
        self.passed = 0
        self._open.clear()
        self._entered = threading.Semaphore(0)

    def open(self) -> None:
        self._open.set()

    def wait_for_one(self) -> None:
        assert self._entered.acquire(timeout=TIMEOUT_S)

    def __call__(self) -> None:
        self.passed += 1
        self._entered.release()
        assert self._open.wait(TIMEOUT_S)


@register("TestServiceGate")
class ServiceGate(ItemBackend):
    """Lets an item through when the gate is open."""

    gate: ClassVar[Gate]

    def process(self, data: Any) -> Any:
        ServiceGate.gate()
        return data


class CountedHandler:
    """A real handler, and how many calls have reached it."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self.calls = threading.Semaphore(0)

    def classify(
        self, images: Sequence[bytes], deadline: Deadline | None
    ) -> list[Scores | ImageFailure]:
        self.calls.release()
        return self._handler.classify(images, deadline)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._handler, name)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A classifier of three classes: the means of the channels."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["means"]),
        helper.make_node("Flatten", ["means"], ["logits"]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 8, 8])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 3])
    graph = helper.make_graph(nodes, "means", [image], [logits])
    path = tmp_path_factory.mktemp("model") / "means.onnx"
    opset = helper.make_opsetid("", 17)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=10), path)
    return str(path)


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    ServiceGate.gate = gate
    yield gate
    gate.open()


Build = Callable[[str], CountedHandler]


@pytest.fixture
def build(model: str, gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Build:
    """Builds a handler with the gate at a place: build("pipeline before decoding")."""

    def pipeline(place: str) -> Handler:
        path = tmp_path / "gated.toml"
        places = dict.fromkeys(("before_decoding", "before_inference"), "")
        path.write_text(CONFIG.format(**{**places, place: "TestServiceGate,"}))
        settings = HandlerSettings(engine="onnxruntime", model=model, config=str(path))
        return create_pipeline(settings)

    def baseline(place: str) -> Handler:
        handler = create_baseline(HandlerSettings(engine="onnxruntime", model=model))
        assert isinstance(handler, BaselineHandler)
        if place == "before_decoding":

            def gated_decode(*arguments: Any) -> np.ndarray:
                gate()
                return decode_bgr(*arguments)

            monkeypatch.setattr(baseline_trt.preprocessing, "decode_bgr", gated_decode)
        else:
            context = handler._engine.inference._context
            run = context.run

            def gated_run(items: Any) -> Any:
                gate()
                return run(items)

            context.run = gated_run
        return handler

    def build(which: str) -> CountedHandler:
        name, place = which.split(maxsplit=1)
        makers = {"pipeline": pipeline, "baseline": baseline}
        return CountedHandler(makers[name](place.replace(" ", "_")))

    return build


@contextmanager
def held(server: Any, handler: CountedHandler, gate: Gate) -> Iterator[Future[Any]]:
    """A call of three images is being worked on, and the first of them held at the gate."""
    while handler.calls.acquire(blocking=False):
        # Those of the warm-up.
        continue
    gate.close()
    client = server.client()
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(client.infer_images, [Params(str(i), JPEG) for i in range(3)])
        try:
            gate.wait_for_one()
            assert handler.calls.acquire(timeout=TIMEOUT_S)
            yield call
        finally:
            gate.open()
    client.close()


# In the baseline each connection's thread decodes at once what it is given: nothing waits there.
WAITING = ["pipeline before decoding", "pipeline before inference", "baseline before inference"]


@pytest.mark.parametrize("which", WAITING)
def test_nothing_is_done_for_a_client_that_has_gone(
    which: str, build: Build, serve: Any, gate: Gate, wire: Any
) -> None:
    handler = build(which)
    server = serve(handler, default_timeout_ms=0)
    with held(server, handler, gate) as call:
        leaving = server.connect()
        leaving.sendall(wire.frame(wire.infer_batch(JPEG)))
        assert handler.calls.acquire(timeout=TIMEOUT_S)
        leaving.close()
        gate.open()
        assert [result.error for result in call.result(TIMEOUT_S)] == [None] * 3
        neighbour = server.client()
        assert neighbour.infer_batch(Params("u", JPEG)).label.startswith("class_")
        neighbour.close()
    server.stop()
    batches = 1 if which.startswith("baseline") else 3
    assert gate.passed == batches + 1, "those of the clients that waited"


def test_the_rest_of_a_call_is_not_decoded_for_a_client_that_has_gone(
    build: Build, serve: Any, gate: Gate
) -> None:
    handler = build("baseline before decoding")
    server = serve(handler)
    gate.close()
    client = server.client()
    client._send("infer_images", requests=[Params(str(i), JPEG) for i in range(5)])
    gate.wait_for_one()
    client.close()
    gate.open()
    server.stop()
    assert gate.passed == 1


@pytest.mark.parametrize("which", WAITING)
def test_expired_work_is_dropped_and_its_client_told_the_limit(
    which: str, build: Build, serve: Any, gate: Gate
) -> None:
    """A call's own limit may be less than the server's, and counts for no more."""
    handler = build(which)
    server = serve(handler, default_timeout_ms=250)
    with held(server, handler, gate):
        client = server.client()
        for own_ms, limit_ms in ((100, 100), (20_000, 250)):
            (result,) = client.infer_images([Params("u", JPEG)], Options(timeout_ms=own_ms))
            assert result.error.code == Code.DEADLINE_EXCEEDED
            assert f"not finished within timeout_ms = {limit_ms}" in result.error.message
        with pytest.raises(inference.DeadlineExceeded, match="timeout_ms = 250") as caught:
            client.infer_batch(Params("u", JPEG))
        assert caught.value.timeout_ms == 250
        client.close()
    server.stop()
    assert gate.passed == 1, "the one that was at work already"


def test_those_who_wait_are_answered_while_the_server_drains(
    build: Build, serve: Any, gate: Gate
) -> None:
    """Draining closes the half of each connection on which requests come."""
    handler = build("pipeline before decoding")
    server = serve(handler)
    with held(server, handler, gate) as call:
        server.server.stop()
        for connection in server.server._connections.open():
            connection.stop()
        gate.open()
        assert [result.error for result in call.result(TIMEOUT_S)] == [None] * 3
    server.join()
    assert gate.passed == 3


def test_the_handlers_say_how_many_images_they_work_on_at_once(build: Build) -> None:
    pipeline, baseline = (build(f"{name} before inference") for name in ("pipeline", "baseline"))
    assert pipeline.info().images_at_work == 2, "one in each node"
    assert baseline.info().images_at_work == 4, "a batch"
    pipeline.close()
    baseline.close()
