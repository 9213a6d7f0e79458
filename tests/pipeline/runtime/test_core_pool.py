"""Nodes on the CPU share the cores: who runs what, in which order, and what a failure costs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import cv2
import numpy as np
import pytest

from engine.cpu.cores import CORES_VARIABLE
from pipeline import NodeError, Pipe, pipe
from pipeline.backends.interface import Backend, InstanceConfig, Item
from pipeline.backends.registry import register
from pipeline.errors import ClosedError, DeadlinePassedError
from pipeline.keys import TASK_DATA_KEY, TASK_ERROR_KEY, TASK_RESULT_KEY
from pipeline.language.settings import Setting, read_count
from pipeline.runtime.core_pool import CorePool, PooledQueue
from pipeline.runtime.counts import LeaveReason
from pipeline.runtime.task import Task, WaitingCall
from service.handlers.restart_policy import RestartPolicy
from service.images.cost import image_cost
from service.images.decode_memory import DECODE_MEMORY
from tests.serving import TIMEOUT_S

NEVER_MS = 60_000
AT_ONCE = RestartPolicy(first_wait_s=0.0)


class Log:
    """What the backends of this file have done; one for each test."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.batches: list[tuple[str, list[Any]]] = []
        self.threads: list[int] = []
        self.init_threads: list[int] = []
        self.inside = 0
        self.most_inside = 0
        # Called within every forward, with the node's name.
        self.meanwhile: Callable[[str], None] = lambda _: None
        self.ends_pass: Callable[[str], None] = lambda _: None


@register("TestPooled")
class Pooled(Backend):
    """Hands numbers on, several at a time; an exception as data is raised."""

    settings: ClassVar[tuple[Setting, ...]] = (Setting("test_max", read_count, "a count", 1),)
    any_thread = True
    log: ClassVar[Log]

    def init(self, config: InstanceConfig) -> None:
        self.max = config.settings["test_max"]
        self._node = config.node
        Pooled.log.init_threads.append(threading.get_ident())

    def forward(self, items: Sequence[Item]) -> None:
        log = Pooled.log
        with log.lock:
            # An image that is kept here would keep its memory.
            numbers = [data for item in items if isinstance(data := item[TASK_DATA_KEY], int)]
            log.batches.append((self._node, numbers))
            log.threads.append(threading.get_ident())
            log.inside += 1
            log.most_inside = max(log.most_inside, log.inside)
        try:
            log.meanwhile(self._node)
            for item in items:
                if isinstance(item[TASK_DATA_KEY], BaseException):
                    raise item[TASK_DATA_KEY]
                item[TASK_RESULT_KEY] = item[TASK_DATA_KEY]
        finally:
            with log.lock:
                log.inside -= 1

    def end_pass(self) -> None:
        Pooled.log.ends_pass(self._node)


@pytest.fixture
def log() -> Log:
    Pooled.log = Log()
    return Pooled.log


@pytest.fixture
def one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CORES_VARIABLE, "1")


def two_nodes(largest: int, **settings: Any) -> dict[str, Any]:
    return {
        "first": {"backend": "TestPooled", "next": "second", **settings},
        "second": {"backend": "TestPooled", "test_max": largest, **settings},
    }


class Door:
    """Lets the first batch in, which then stands still until `open`."""

    def __init__(self, log: Log) -> None:
        self.is_entered, self.open = threading.Event(), threading.Event()
        log.meanwhile = self.pass_

    def pass_(self, node: str) -> None:
        del node
        self.is_entered.set()
        assert self.open.wait(TIMEOUT_S)


def run_behind(run: Pipe, door: Door, numbers: Sequence[Any]) -> list[dict[str, Any]]:
    """Run items of which the first has the one core until the others wait."""
    items = [{TASK_DATA_KEY: number} for number in numbers]
    done = [threading.Event() for _ in items]
    run.submit(items[0], done[0].set)
    assert door.is_entered.wait(TIMEOUT_S)
    for item, event in zip(items[1:], done[1:], strict=True):
        run.submit(item, event.set)
    door.open.set()
    assert all(event.wait(TIMEOUT_S) for event in done)
    return items


@pytest.mark.usefixtures("one_core")
def test_nodes_before_a_batch_fill_it_and_a_full_one_comes_first(log: Log) -> None:
    with pipe(two_nodes(2, batching_timeout=NEVER_MS)) as run:
        items = run_behind(run, Door(log), range(5))
        counts = run.local_nodes["second"].counts.batches
    assert [item[TASK_RESULT_KEY] for item in items] == list(range(5))
    assert log.batches == [
        *(("first", [0]), ("first", [1]), ("second", [0, 1])),
        *(("first", [2]), ("first", [3]), ("second", [2, 3])),
        # Nothing could fill it any more.
        *(("first", [4]), ("second", [4])),
    ]
    assert counts.by_reason == {LeaveReason.FULL: 2, LeaveReason.IDLE: 1}
    assert log.most_inside == 1


@pytest.mark.usefixtures("one_core")
def test_a_batch_is_not_filled_for_longer_than_batching_timeout(log: Log) -> None:
    with pipe(two_nodes(4, batching_timeout=0)) as run:
        run_behind(run, Door(log), range(3))
    assert log.batches == [(node, [number]) for number in range(3) for node in ("first", "second")]


@pytest.mark.parametrize("cores", [1, 2])
def test_all_nodes_together_run_no_more_batches_than_there_are_cores(
    log: Log, monkeypatch: pytest.MonkeyPatch, cores: int
) -> None:
    monkeypatch.setattr("pipeline.callable_pipe.available_cores", lambda: cores)
    nodes = two_nodes(3, instance_num=3)
    nodes["second"]["next"] = "third"
    nodes["third"] = {"backend": "TestPooled", "instance_num": 3}
    with pipe(nodes) as run, ThreadPoolExecutor(8) as callers:

        def call(number: int) -> list[Any]:
            items = [{TASK_DATA_KEY: number + k} for k in range(1 + number % 3)]
            run(items)
            return [item[TASK_RESULT_KEY] for item in items]

        for number, results in enumerate(callers.map(call, range(400))):
            assert results == [number + k for k in range(1 + number % 3)]
    assert log.most_inside <= cores


@pytest.mark.usefixtures("one_core")
def test_a_graph_shares_the_cores_too(log: Log) -> None:
    nodes: dict[str, Any] = {
        "root": {"backend": "TestPooled", "next": "left,right"},
        "left": {"backend": "TestPooled", "next": "joined"},
        "right": {"backend": "TestPooled", "next": "joined"},
        "joined": {"backend": "TestPooled", "map": "left[result:data],right[result:other]"},
    }
    with pipe(nodes) as run:
        item: dict[str, Any] = {TASK_DATA_KEY: 7}
        run(item)
    assert item[TASK_RESULT_KEY] == 7
    assert sorted(node for node, _ in log.batches) == ["joined", "left", "right", "root"]
    assert log.most_inside == 1


@pytest.mark.usefixtures("one_core")
def test_a_lone_item_is_run_by_its_caller_through_a_node_of_batches(log: Log) -> None:
    with pipe(two_nodes(4)) as run:
        for number in range(3):
            run({TASK_DATA_KEY: number})
    assert log.threads == [threading.get_ident()] * 6


@pytest.mark.usefixtures("log")
@pytest.mark.parametrize("in_caller", [True, False])
def test_what_nothing_expected_is_rebuilt_in_the_instances_own_thread(
    log: Log, in_caller: bool
) -> None:
    """Also where the error came up in the thread of a caller, or of another node's instance."""
    left = [SystemExit("out of the blue")]

    def end_pass(node: str) -> None:
        if node == "second" and left:
            raise left.pop()

    log.ends_pass = end_pass
    document = two_nodes(2)
    with pipe(document, rebuild=AT_ONCE) as run:
        bad: dict[str, Any] = {TASK_DATA_KEY: 1}
        if in_caller:
            run(bad)
        else:
            done = threading.Event()
            run.submit(bad, done.set)
            assert done.wait(TIMEOUT_S)
        assert isinstance(bad[TASK_ERROR_KEY], NodeError)
        assert isinstance(bad[TASK_ERROR_KEY].cause, SystemExit)
        deadline = threading.Event()
        while run.local_nodes["second"].counts.rebuilds == 0:
            assert not deadline.wait(0.001)
        good: dict[str, Any] = {TASK_DATA_KEY: 2}
        while TASK_RESULT_KEY not in good:
            run(good)
        owner = run.local_nodes["second"].threads[0].ident
        assert log.init_threads[-1] == owner


def test_an_engine_that_fails_is_looked_after_by_its_instances_thread(log: Log) -> None:
    document = two_nodes(2)
    with pipe(document, rebuild=AT_ONCE) as run:
        run({TASK_DATA_KEY: 0})
        for _ in range(3):
            run({TASK_DATA_KEY: RuntimeError("the engine is broken")})
        good: dict[str, Any] = {TASK_DATA_KEY: 5}
        while TASK_RESULT_KEY not in good:
            run(good)
        nodes = run.local_nodes
        # The node that was asked first fails the items, is tried with one that has worked, stays.
        owner = nodes["first"].threads[0].ident
        while owner not in log.threads:
            run({TASK_DATA_KEY: 6})
        assert [node.counts.rebuilds for node in nodes.values()] == [0, 0]


@pytest.fixture
def memory_for() -> Iterator[Callable[[float], None]]:
    before = DECODE_MEMORY.limit_bytes

    def limit(limit_bytes: float) -> None:
        DECODE_MEMORY.limit_bytes = limit_bytes

    yield limit
    DECODE_MEMORY.limit_bytes = before


@pytest.mark.usefixtures("one_core")
def test_who_waits_for_memory_leaves_the_core_to_others(
    log: Log, memory_for: Callable[[float], None]
) -> None:
    """The first whole image waits for a second one, for which there is memory only after it."""
    jpeg = cv2.imencode(".jpg", np.zeros((60, 80, 3), np.uint8))[1].tobytes()
    cost = image_cost(jpeg)
    assert cost is not None
    memory_for(1.5 * cost.memory_bytes)
    nodes = {
        "decode": {"backend": "DecodeMat", "next": "pairs", "batching_timeout": NEVER_MS},
        "pairs": {"backend": "S[TestPooled,ResizeMat]", "test_max": 2},
    }
    nodes["pairs"].update(resize_h=4, resize_w=4, batching_timeout=NEVER_MS)  # type: ignore[arg-type]
    with pipe(nodes) as run:
        items: list[dict[str, Any]] = [{TASK_DATA_KEY: jpeg} for _ in range(6)]
        run(items, timeout_ms=1000 * TIMEOUT_S)
    assert [item[TASK_RESULT_KEY].shape for item in items] == [(4, 4, 3)] * 6
    assert log.most_inside == 1


class TestQueue:
    """A `PooledQueue` by itself."""

    @staticmethod
    def task(data: Any = 1) -> Task:
        return Task({TASK_DATA_KEY: data}, WaitingCall(1, None))

    def test_without_an_instance_a_caller_runs_nothing(self) -> None:
        queue = PooledQueue(CorePool(1), 0)
        assert not queue.run_in_caller(self.task())

    def test_a_closed_queue_refuses(self) -> None:
        queue = PooledQueue(CorePool(1), 0)
        queue.close()
        with pytest.raises(ClosedError, match="the pipeline is closed"):
            queue.put(self.task())


def test_an_interrupted_caller_gives_core_and_instance_back(log: Log) -> None:
    def interrupt(_: str) -> None:
        log.meanwhile = lambda _: None
        raise KeyboardInterrupt

    log.meanwhile = interrupt
    with pipe({"only": {"backend": "TestPooled"}}) as run:
        with pytest.raises(KeyboardInterrupt):
            run({TASK_DATA_KEY: 1})
        item: dict[str, Any] = {TASK_DATA_KEY: 2}
        run(item, timeout_ms=1000 * TIMEOUT_S)
        assert item[TASK_RESULT_KEY] == 2
        assert run.local_nodes["only"].counts.rebuilds == 0


@pytest.mark.usefixtures("one_core")
def test_an_item_whose_caller_has_given_up_is_dropped_before_its_next_node(log: Log) -> None:
    door = Door(log)
    with pipe(two_nodes(2)) as run:
        ahead: dict[str, Any] = {TASK_DATA_KEY: 1}
        done = threading.Event()
        run.submit(ahead, done.set)
        assert door.is_entered.wait(TIMEOUT_S)
        late: dict[str, Any] = {TASK_DATA_KEY: 2}
        run(late, timeout_ms=1)
        assert isinstance(late[TASK_ERROR_KEY], DeadlinePassedError)
        door.open.set()
        assert done.wait(TIMEOUT_S)
    assert [batch for batch in log.batches if batch[1] == [2]] == []
