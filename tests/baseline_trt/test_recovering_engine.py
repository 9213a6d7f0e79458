"""An engine that fails on command: a second try for each image, and an engine that is rebuilt."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import baseline_trt.handler
from baseline_trt.handler import BaselineHandler
from baseline_trt.inference import EngineUnavailableError
from service.handlers.deadline import Deadline
from service.handlers.handler_settings import HandlerSettings
from service.handlers.outcomes import DeadlineExceededError, ImageFailure, InvalidImageError, Scores
from service.handlers.restart_policy import RestartPolicy

PATIENCE_S = 60


class Loads:
    """Every load of the engine; it goes on when a test allows it."""

    def __init__(self, load: Any) -> None:
        self._load = load
        self.begun = threading.Semaphore(0)
        self.may_end = threading.Event()
        self.may_end.set()
        self.raises: BaseException | None = None

    def __call__(self, *arguments: Any) -> Any:
        self.begun.release()
        assert self.may_end.wait(PATIENCE_S)
        if (error := self.raises) is not None:
            self.raises = None
            raise error
        return self._load(*arguments)


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> Iterator[Loads]:
    counted = Loads(baseline_trt.handler.load_baseline_engine)
    monkeypatch.setattr(baseline_trt.handler, "load_baseline_engine", counted)
    yield counted
    counted.may_end.set()


@pytest.fixture(params=[True, False], ids=["lock", "no lock"])
def handler(request: pytest.FixtureRequest, loads: Loads) -> Iterator[BaselineHandler]:
    settings = HandlerSettings(
        engine="onnxruntime", model="efficientnet_lite0", lock=request.param, max_batch_size=4
    )
    made = BaselineHandler(settings, RestartPolicy(first_wait_s=0.0))
    assert loads.begun.acquire(timeout=PATIENCE_S)
    yield made
    loads.may_end.set()
    made.close()


class Panic(BaseException):
    """As PyO3's PanicException: no Exception."""


BROKEN = RuntimeError("the engine is broken")


def fail_calls(
    handler: BaselineHandler, *failing: bool, error: BaseException = BROKEN
) -> list[int]:
    """Let the next calls of the engine raise where `failing` says so; the rows of each call."""
    inference = handler._engine.inference
    run, calls, left = inference.run, list[int](), list(failing)

    def flaky(batch: Any, deadline: Deadline | None) -> Any:
        calls.append(len(batch))
        if left and left.pop(0):
            raise error
        return run(batch, deadline)

    inference.run = flaky
    return calls


def test_each_image_of_a_batch_that_fails_runs_once_more(
    handler: BaselineHandler, photographs: list[bytes]
) -> None:
    calls = fail_calls(handler, True, False, True, False)
    images = [photographs[0], b"no image", *photographs[1:3]]
    kinds = [type(outcome) for outcome in handler.classify(images, None)]
    assert kinds == [Scores, InvalidImageError, ImageFailure, Scores]
    assert calls == [3, 1, 1, 1]
    assert handler.why_not_ready() == ""


def test_an_expired_image_is_not_retried(
    handler: BaselineHandler, photographs: list[bytes]
) -> None:
    deadline = Deadline.after(60_000)
    inference, calls = handler._engine.inference, []

    def late(batch: Any, _: Deadline | None) -> Any:
        calls.append(len(batch))
        object.__setattr__(deadline, "at_s", 0.0)
        raise RuntimeError("the engine is broken")

    inference.run = late
    outcomes = handler.classify(photographs[:2], deadline)
    assert all(isinstance(outcome, DeadlineExceededError) for outcome in outcomes)
    assert calls == [2]


@pytest.mark.parametrize(
    ("error", "while_loading"),
    [(BROKEN, OSError("no memory")), (Panic("the engine is broken"), SystemExit(3))],
    ids=["exceptions", "no exceptions"],
)
def test_after_three_failures_it_is_rebuilt(
    handler: BaselineHandler,
    loads: Loads,
    photographs: list[bytes],
    error: BaseException,
    while_loading: BaseException,
) -> None:
    expected = handler.classify(photographs[:1], None)[0]
    loads.may_end.clear()
    loads.raises = while_loading
    # Three calls that are tried twice, and what has worked before.
    fail_calls(handler, *[True] * 7, error=error)
    words = f"{type(error).__name__}: the engine is broken"
    for _ in range(3):
        (outcome,) = handler.classify(photographs[:1], None)
        assert str(outcome) == words
    assert loads.begun.acquire(timeout=PATIENCE_S)
    why = handler.why_not_ready()
    assert why.startswith("the engine is broken since 20")
    assert f"({words}); it is being rebuilt" in why
    (outcome,) = handler.classify(photographs[:1], None)
    assert isinstance(outcome, EngineUnavailableError)
    assert handler.info().engine == "onnxruntime"
    loads.may_end.set()
    # The first attempt fails, the second one does not.
    assert loads.begun.acquire(timeout=PATIENCE_S)
    thread = handler._engine._thread
    assert thread is not None
    thread.join(PATIENCE_S)
    assert handler.why_not_ready() == ""
    (outcome,) = handler.classify(photographs[:1], None)
    assert isinstance(outcome, Scores)
    assert isinstance(expected, Scores)
    assert (outcome.probabilities == expected.probabilities).all()


def test_images_that_fail_it_leave_it_in_service(
    handler: BaselineHandler, photographs: list[bytes]
) -> None:
    """What has worked before works after any three of them."""
    (expected,) = handler.classify(photographs[:1], None)
    poison = [True, True]
    calls = fail_calls(handler, *[*poison * 3, False] * 3)
    for _ in range(9):
        (outcome,) = handler.classify(photographs[1:2], None)
        assert str(outcome) == "RuntimeError: the engine is broken"
        assert handler.why_not_ready() == ""
    assert len(calls) == 21
    (outcome,) = handler.classify(photographs[:1], None)
    assert isinstance(outcome, Scores)
    assert isinstance(expected, Scores)
    assert (outcome.probabilities == expected.probabilities).all()


def test_calls_of_many_threads_are_answered_while_it_breaks(
    handler: BaselineHandler, photographs: list[bytes]
) -> None:
    fail_calls(handler, *[True] * 30)
    with ThreadPoolExecutor(4) as pool:
        outcomes = [
            outcome
            for outcomes in pool.map(lambda _: handler.classify(photographs[:2], None), range(12))
            for outcome in outcomes
        ]
    assert len(outcomes) == 24
    assert all(isinstance(outcome, Scores | ImageFailure) for outcome in outcomes)


def test_closing_waits_for_the_load_under_way(
    handler: BaselineHandler, loads: Loads, photographs: list[bytes]
) -> None:
    loads.may_end.clear()
    fail_calls(handler, *[True] * 6)
    for _ in range(3):
        handler.classify(photographs[:1], None)
    assert loads.begun.acquire(timeout=PATIENCE_S)
    closing = threading.Thread(target=handler.close)
    closing.start()
    loads.may_end.set()
    closing.join(PATIENCE_S)
    assert "rebuild-engine" not in {thread.name for thread in threading.enumerate()}


def test_a_batch_that_never_ends_shows(photographs: list[bytes]) -> None:
    settings = HandlerSettings(
        engine="onnxruntime", model="efficientnet_lite0", hang_timeout_s=0.02
    )
    handler = BaselineHandler(settings)
    context, go_on = handler._engine.inference._context, threading.Event()
    run = context.run

    def stuck(inputs: Any) -> Any:
        assert go_on.wait(PATIENCE_S)
        return run(inputs)

    context.run = stuck
    end_s = time.monotonic() + PATIENCE_S
    with ThreadPoolExecutor(1) as caller:
        call = caller.submit(handler.classify, photographs[:1], None)
        try:
            while not (why := handler.why_not_ready()):
                assert time.monotonic() < end_s
        finally:
            go_on.set()
        assert "the engine has been at work on one batch for" in why
        assert isinstance(call.result(PATIENCE_S)[0], Scores)
    assert handler.why_not_ready() == ""
    handler.close()
