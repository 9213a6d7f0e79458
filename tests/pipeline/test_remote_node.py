"""What a worker does with the items that it hands to an engine process, and with their outcomes."""

from __future__ import annotations

import os
import socket
import threading
import time
from array import array
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
import torch

from pipeline.engine_process.host import Worker
from pipeline.engine_process.remote_node import RemoteNode
from pipeline.task import Task, WaitingCall
from tests.serving import TIMEOUT_S

SLOTS = 256


class Engine:
    """The engine process's end, in this process: outcomes are given when the test says so."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        self._ends = socket.socketpair()
        self._greeting = threading.Thread(target=self._welcome)
        self.worker: Worker
        self._is_there = True

    def connect(self) -> socket.socket:
        if self._greeting.ident is not None:
            raise ConnectionRefusedError("there is no other one")
        self._greeting.start()
        return self._ends[0]

    def _welcome(self) -> None:
        self.worker = Worker(self._ends[1], 0)
        self.worker.welcome({"info": {}}, [self._writer])

    def announced(self, count: int) -> list[Task]:
        """The next items that are announced."""
        tasks = []
        while len(tasks) < count:
            for slot in array("Q", os.read(self._reader, 8)):
                task = self.worker.task(slot)
                assert task is not None
                tasks.append(task)
        return tasks

    def answer(self, task: Task) -> None:
        """Give an item its own data as the result."""
        task.item["result"] = torch.tensor([int(bytes(task.item["data"]))])
        task.finish()
        if task.call.after_batch is not None:
            task.call.after_batch()

    def hang_up(self) -> None:
        if self._is_there:
            self.worker.close()
        self._is_there = False

    def close(self) -> None:
        self._greeting.join()
        self.hang_up()
        os.close(self._reader)
        os.close(self._writer)


@pytest.fixture
def engine() -> Iterator[Engine]:
    made = Engine()
    yield made
    made.close()


@pytest.fixture
def node(engine: Engine) -> Iterator[RemoteNode]:
    made = RemoteNode("model", engine.connect)
    made.start()
    yield made
    made.stop()


@pytest.fixture
def callers() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


def handed_over(data: int, deadline_s: float | None = None) -> Task:
    return Task({"data": b"%d" % data}, WaitingCall(1, deadline_s))


def submitted(callers: ThreadPoolExecutor, node: RemoteNode, task: Task) -> Future[None]:
    return callers.submit(node.submit, task, caller_waits=True)


@pytest.mark.parametrize("caller_waits", [False, True])
def test_outcomes_reach_their_items(
    engine: Engine, node: RemoteNode, callers: ThreadPoolExecutor, *, caller_waits: bool
) -> None:
    tasks = [handed_over(number) for number in range(4)]
    calls = [callers.submit(node.submit, task, caller_waits=caller_waits) for task in tasks]
    for one in reversed(engine.announced(4)):
        engine.answer(one)
    for number, (task, call) in enumerate(zip(tasks, calls, strict=True)):
        call.result(TIMEOUT_S)
        task.call.wait()
        assert task.error is None
        assert task.item["result"].tolist() == [number]


def test_a_slot_left_at_the_deadline_is_used_again_once_its_outcome_is_there(
    engine: Engine, node: RemoteNode, callers: ThreadPoolExecutor
) -> None:
    for number in range(SLOTS - 1):
        node.submit(handed_over(number))
    late = handed_over(0, time.monotonic() + 0.02)
    node.submit(late, caller_waits=True)
    assert not late.done
    *_, left = engine.announced(SLOTS)
    last = handed_over(7)
    call = submitted(callers, node, last)
    assert not call.done()
    engine.answer(left)
    (arrived,) = engine.announced(1)
    engine.answer(arrived)
    call.result(TIMEOUT_S)
    assert last.item["result"].tolist() == [7]


def test_the_end_of_the_engine_process_frees_those_who_wait(
    engine: Engine, node: RemoteNode, callers: ThreadPoolExecutor
) -> None:
    tasks = [handed_over(1), handed_over(2, time.monotonic() + TIMEOUT_S)]
    calls = [submitted(callers, node, task) for task in tasks]
    engine.announced(2)
    engine.hang_up()
    for task, call in zip(tasks, calls, strict=True):
        call.result(TIMEOUT_S)
        assert "the engine process ended" in str(task.error)
