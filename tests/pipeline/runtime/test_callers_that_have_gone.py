"""Items whose caller has gone, or whose time is up, are dropped before the next work on them."""

from __future__ import annotations

import os
import socket
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pipeline import DeadlinePassedError, NodeError, pipe
from pipeline.engine_process.engine_facts import EngineFacts
from pipeline.engine_process.messages import FROM_WORKER, Welcome
from pipeline.engine_process.remote_node import RemoteNode
from pipeline.runtime.batch_queue import BatchQueue
from pipeline.runtime.task import Task, WaitingCall
from service.processes.control_channel import ControlChannel

TIMEOUT_S = 30
GATED = {"backend": "TestGated", "instance_num": 1}
DOUBLE = {"backend": "TestDouble"}
DIAMOND = {
    "first": {**DOUBLE, "next": "left,right"},
    "left": {**GATED, "next": "join"},
    "right": {**DOUBLE, "next": "join"},
    "join": {**DOUBLE, "map": "left[result:data],right[result:other]"},
}
OF_A_LIST = {
    "each": {"backend": "MapReduce", "jump": "work"},
    "work": GATED,
}


def dropped(item: dict[str, Any]) -> bool:
    error = item["error"]
    return isinstance(error.cause if isinstance(error, NodeError) else error, DeadlinePassedError)


@pytest.mark.parametrize(
    ("document", "data"),
    [({"only": GATED}, 2), (DIAMOND, 2), (OF_A_LIST, [2])],
    ids=["chain", "graph", "elements of a list"],
)
def test_what_waits_for_a_caller_that_goes_is_not_run(
    gate: Any, document: dict[str, Any], data: Any
) -> None:
    gone = threading.Event()
    asked = threading.Semaphore(0)

    def has_gone() -> bool:
        asked.release()
        return gone.is_set()

    with pipe(document) as running, ThreadPoolExecutor(3) as callers:
        items = [{"data": data} for _ in range(3)]
        first = callers.submit(running, items[0])
        assert gate.entered.acquire(timeout=TIMEOUT_S)
        leaving = callers.submit(running, items[1], has_gone=has_gone)
        gone.set()
        staying = callers.submit(running, items[2], has_gone=lambda: False)
        gate.open.set()
        for call in (first, leaving, staying):
            call.result(TIMEOUT_S)
    assert asked.acquire(blocking=False)
    assert "error" in items[1]
    assert [item for item in items if "result" not in item] == [items[1]]
    assert len(gate.batches) == 2


def test_a_caller_that_is_there_gets_its_results(gate: Any) -> None:
    gate.open.set()
    with pipe({"only": GATED}) as running:
        items = [{"data": 1}, {"data": 2}]
        running(items, has_gone=lambda: False)
    assert [item["result"] for item in items] == [2, 4]


class SilentEngine:
    """An engine process's end of the connection: it takes items and never answers."""

    def __init__(self) -> None:
        self._ends = socket.socketpair(type=socket.SOCK_SEQPACKET)
        self.submitted, self._writer = os.pipe()
        self._thread = threading.Thread(target=self._welcome)

    def connect(self) -> tuple[socket.socket, int]:
        self._thread.start()
        return self._ends[0], os.getpid()

    def _welcome(self) -> None:
        channel = ControlChannel(self._ends[1], FROM_WORKER)
        greeting = channel.receive()
        assert greeting is not None
        os.close(greeting.descriptor())
        facts = EngineFacts("none", "fp32", "numbers", "", "", "none", 1, 1, 1, {})
        channel.send(Welcome(0, facts), [self._writer])

    def close(self) -> None:
        self._thread.join()
        self._ends[1].close()
        os.close(self.submitted)
        os.close(self._writer)


@pytest.fixture
def silent() -> Iterator[SilentEngine]:
    engine = SilentEngine()
    yield engine
    engine.close()


def test_expired_items_are_not_handed_to_the_engine_process(silent: SilentEngine) -> None:
    node = RemoteNode("model", silent.connect, hang_timeout_s=0)
    node.start()
    late = Task({"data": b"late"}, WaitingCall(1, time.monotonic() - 1))
    left = Task({"data": b"left"}, WaitingCall(1, None, lambda: True))
    there = Task({"data": b"there"}, WaitingCall(1, None, lambda: False))
    for task in (late, left, there):
        node.submit(task)
    assert [dropped({"error": task.error}) for task in (late, left)] == [True, True]
    assert len(os.read(silent.submitted, 4096)) == 8, "one submission"
    node.stop()


def test_waiting_for_a_place_in_the_engine_process_ends_with_the_deadline(
    silent: SilentEngine,
) -> None:
    node = RemoteNode("model", silent.connect, hang_timeout_s=0)
    node.start()
    for _ in range(256):
        node.submit(Task({"data": b"x"}, WaitingCall(1, None)))
    late = Task({"data": b"late"}, WaitingCall(1, time.monotonic() + 0.05))
    node.submit(late)
    assert "before there was a place" in str(late.error)
    node.stop()


def test_what_is_overdue_does_not_pile_up_behind_instances_that_take_nothing() -> None:
    """Only the items in front are looked at: the deadlines of one server lie in order."""
    queue = BatchQueue(timeout_ms=0)
    passed_s, coming_s = time.monotonic() - 1, time.monotonic() + 60
    overdue = [Task({"data": n, "request_size": 2}, WaitingCall(1, passed_s)) for n in range(2)]
    alive, last = (Task({"data": n}, WaitingCall(1, coming_s)) for n in "al")
    assert queue.put(overdue[0]) == ()
    assert queue.put(alive) == [overdue[0]]
    assert queue.put(overdue[1]) == []
    assert queue.put(last) == []
    batch = queue.take(1, 4)
    assert batch == [alive, overdue[1], last]


def test_an_overdue_item_is_over_as_soon_as_the_next_one_comes(gate: Any) -> None:
    with pipe({"only": GATED}) as running, ThreadPoolExecutor(2) as callers:
        first = callers.submit(running, {"data": 1})
        assert gate.entered.acquire(timeout=TIMEOUT_S)
        data = Image()
        is_freed = threading.Event()
        weakref.finalize(data, is_freed.set)
        running({"data": data}, timeout_ms=20)
        del data
        assert not is_freed.is_set()
        running({"data": 3}, timeout_ms=20)
        assert is_freed.is_set()
        gate.open.set()
        first.result(TIMEOUT_S)
    assert gate.batches == [[1]]


class Image:
    """Data that can be referred to weakly."""
