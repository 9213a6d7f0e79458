"""A caller that would only wait does the work itself, where the backend lets it."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import pytest

from pipeline import NodeError, Pipe, PipelineInputError, pipe
from pipeline.backends.interface import Backend, InstanceConfig, Item
from pipeline.backends.registry import register
from pipeline.keys import TASK_DATA_KEY, TASK_RESULT_KEY
from service.handlers.outcomes import InvalidImageError
from tests.serving import TIMEOUT_S


class Seen:
    """What the instances of TestAnywhere have seen."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.threads: list[int] = []
        self.objects: set[int] = set()
        self.inside = 0
        self.most_inside = 0
        # Called within every forward.
        self.meanwhile: Callable[[Any], None] = lambda _: None


@register("TestAnywhere")
class Anywhere(Backend):
    """Doubles numbers in whatever thread; "bad" is no image. No object is used by two at once."""

    can_break = False
    any_thread = True
    seen: ClassVar[Seen]

    def init(self, config: InstanceConfig) -> None:  # noqa: ARG002 (it has no settings)
        self._busy = threading.Lock()

    def forward(self, items: Sequence[Item]) -> None:
        (item,) = items
        seen = Anywhere.seen
        assert self._busy.acquire(blocking=False)
        with seen.lock:
            seen.threads.append(threading.get_ident())
            seen.objects.add(id(self))
            seen.inside += 1
            seen.most_inside = max(seen.most_inside, seen.inside)
        try:
            seen.meanwhile(item[TASK_DATA_KEY])
            if item[TASK_DATA_KEY] == "bad":
                raise InvalidImageError("bad is no image")
            item[TASK_RESULT_KEY] = item[TASK_DATA_KEY] * 2
        finally:
            with seen.lock:
                seen.inside -= 1
            self._busy.release()


@pytest.fixture
def seen() -> Seen:
    Anywhere.seen = Seen()
    return Anywhere.seen


def test_one_item_passes_all_such_nodes_in_the_callers_thread(seen: Seen) -> None:
    nodes = {
        "first": {"backend": "TestAnywhere", "next": "second"},
        "second": {"backend": "S[TestAnywhere,TestAnywhere]", "next": "third"},
        "third": {"backend": "TestDouble"},
    }
    end_s = time.monotonic() + TIMEOUT_S
    with pipe(nodes) as run:
        calls = 0
        # Until the instances, which have just been started, wait for work.
        while seen.threads[-3:] != [threading.get_ident()] * 3:
            assert time.monotonic() < end_s
            item = {TASK_DATA_KEY: 1}
            run(item)
            assert item[TASK_RESULT_KEY] == 16
            calls += 1
        counts = [node.counts for node in run.local_nodes.values()]
    assert [(one.items, one.failed_items) for one in counts] == [(calls, 0)] * 3


def test_a_node_behind_one_that_needs_its_own_thread_is_run_by_its_instance(seen: Seen) -> None:
    nodes = {
        "first": {"backend": "TestDouble", "next": "second"},
        "second": {"backend": "S[TestDouble,TestAnywhere]", "next": "third"},
        "third": {"backend": "TestAnywhere"},
    }
    with pipe(nodes) as run:
        run({TASK_DATA_KEY: 1})
    assert threading.get_ident() not in seen.threads
    assert len(set(seen.threads)) == 2


def test_of_several_items_the_caller_takes_at_most_the_last(seen: Seen) -> None:
    with pipe({"only": {"backend": "TestAnywhere", "instance_num": 3}}) as run:
        items = [{TASK_DATA_KEY: number} for number in range(3)]
        run(items)
    assert [item[TASK_RESULT_KEY] for item in items] == [0, 2, 4]
    assert seen.threads.count(threading.get_ident()) <= 1
    assert len(seen.threads) == 3


def test_no_more_work_at_once_than_there_are_instances(seen: Seen) -> None:
    nodes = {"only": {"backend": "TestAnywhere", "instance_num": 2}}
    with pipe(nodes) as run, ThreadPoolExecutor(8) as callers:

        def call(number: int) -> list[Any]:
            items = [{TASK_DATA_KEY: number + k} for k in range(1 + number % 3)]
            run(items)
            return [item[TASK_RESULT_KEY] for item in items]

        for number, results in enumerate(callers.map(call, range(300))):
            assert results == [2 * (number + k) for k in range(1 + number % 3)]
    assert seen.most_inside <= 2
    assert len(seen.objects) == 2


@pytest.mark.usefixtures("seen")
def test_a_failure_in_the_callers_thread_is_that_items_alone() -> None:
    with pipe({"only": {"backend": "TestAnywhere"}}) as run:
        item: dict[str, Any] = {TASK_DATA_KEY: "bad"}
        run(item)
        good = {TASK_DATA_KEY: 2}
        run(good)
        counts = run.local_nodes["only"].counts
    assert isinstance(item["error"], NodeError)
    assert isinstance(item["error"].cause, InvalidImageError)
    assert good[TASK_RESULT_KEY] == 4
    assert (counts.items, counts.failed_items, counts.rebuilds) == (2, 1, 0)


def test_closing_waits_for_what_a_caller_is_working_on(seen: Seen) -> None:
    is_inside, go_on = threading.Event(), threading.Event()

    def wait(_: Any) -> None:
        is_inside.set()
        assert go_on.wait(TIMEOUT_S)

    seen.meanwhile = wait
    run = pipe({"only": {"backend": "TestAnywhere"}})
    with ThreadPoolExecutor(2) as threads:
        item = {TASK_DATA_KEY: 3}
        call = threads.submit(run, item)
        assert is_inside.wait(TIMEOUT_S)
        closing = threads.submit(run.close)
        assert not closing.done()
        go_on.set()
        call.result(TIMEOUT_S)
        closing.result(TIMEOUT_S)
    assert item[TASK_RESULT_KEY] == 6


@pytest.mark.usefixtures("seen")
def test_a_call_that_begins_while_the_pipe_closes_is_refused() -> None:
    is_read, go_on = threading.Event(), threading.Event()

    class SlowItem(dict[str, Any]):
        def get(self, key: str, default: Any = None) -> Any:
            is_read.set()
            assert go_on.wait(TIMEOUT_S)
            return super().get(key, default)

    run = pipe({"only": {"backend": "TestAnywhere"}})
    with ThreadPoolExecutor(1) as threads:
        call = threads.submit(run, SlowItem({TASK_DATA_KEY: 1}), timeout_ms=TIMEOUT_S * 1000)
        assert is_read.wait(TIMEOUT_S)
        run.close()
        go_on.set()
        with pytest.raises(PipelineInputError, match="the pipeline is closed"):
            call.result(TIMEOUT_S)


@pytest.mark.usefixtures("seen")
def test_closing_loses_no_caller_that_works() -> None:
    nodes = {
        "first": {"backend": "TestAnywhere", "next": "second"},
        "second": {"backend": "TestAnywhere", "next": "third"},
        "third": {"backend": "TestAnywhere"},
    }
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(0.05)
    try:
        for _ in range(3):
            run = pipe(nodes)
            begun = threading.Semaphore(0)

            def call(run: Pipe = run, begun: threading.Semaphore = begun) -> int:
                """Call until the pipe is closed."""
                calls = 0
                while True:
                    item = {TASK_DATA_KEY: calls}
                    try:
                        run(item, timeout_ms=TIMEOUT_S * 1000)
                    except PipelineInputError:
                        return calls
                    assert item.get(TASK_RESULT_KEY) == 8 * calls, item
                    calls += 1
                    begun.release()

            with ThreadPoolExecutor(8) as callers:
                calls = [callers.submit(call) for _ in range(8)]
                assert all(begun.acquire(timeout=TIMEOUT_S) for _ in range(50))
                run.close()
                assert sum(one.result(TIMEOUT_S) for one in calls) >= 50
    finally:
        sys.setswitchinterval(interval_s)
