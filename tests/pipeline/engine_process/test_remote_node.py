"""What a worker does with the items that it hands to an engine process, and with their outcomes."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import threading
import time
from array import array
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue

import pytest
import torch

from pipeline.engine_process.connected_worker import Worker
from pipeline.engine_process.engine_facts import EngineFacts
from pipeline.engine_process.remote_node import RemoteNode
from pipeline.engine_process.status_slot import Pulse
from pipeline.errors import NodeError, PipelineConfigError
from pipeline.runtime.task import Task, WaitingCall
from service.handlers.restart_policy import RestartPolicy
from tests.serving import TIMEOUT_S
from tests.waiting import wait_until

SLOTS = 256
FACTS = EngineFacts("none", "fp32", "numbers", "", "", "none", 1, 1, 1, {})
AT_ONCE = RestartPolicy(first_wait_s=0.0)


class Engine:
    """The engine process's end, in this process: outcomes are given when the test says so.

    It can be connected to when a test allows it. The process itself, which only has to live,
    hang or end, is another one.
    """

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        self._greeting = threading.Thread()
        self.worker: Worker
        self.process: subprocess.Popen[bytes]
        self._is_there = False
        # Whether the next attempts to connect succeed; they wait for that.
        self.attempts: SimpleQueue[bool] = SimpleQueue()
        self.attempts.put(True)
        self._is_over = False
        # Whether it takes connections and says nothing, as one that loads does.
        self.is_loading = False
        self.waiting: SimpleQueue[socket.socket] = SimpleQueue()

    def connect(self) -> tuple[socket.socket, int]:
        if self._is_over or not self.attempts.get(timeout=TIMEOUT_S):
            raise ConnectionRefusedError("there is no other one")
        ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
        self.process = subprocess.Popen(["sleep", "600"])
        if self.is_loading:
            self.waiting.put(theirs)
            return ours, self.process.pid
        self._greeting = threading.Thread(target=self._welcome, args=(theirs,))
        self._greeting.start()
        return ours, self.process.pid

    def _welcome(self, sock: socket.socket) -> None:
        self.worker = Worker(sock, 0)
        self._is_there = True
        self.worker.beat(Pulse(1, is_loading=False))
        self.worker.welcome(FACTS, self._writer)

    def announced(self, count: int, *, begun: bool = True) -> list[Task]:
        """The next items that are announced; they are begun with, or only read."""
        tasks = []
        while len(tasks) < count:
            for slot in array("Q", os.read(self._reader, 8)):
                task = self.worker.task(slot)
                assert task is not None
                tasks.append(task)
                if begun:
                    task.call.begin()
        return tasks

    def drop_announcements(self) -> None:
        """Lose those that nothing has read, as the pipe of a process that has ended does."""
        while select.select([self._reader], [], [], 0)[0]:
            os.read(self._reader, 8)

    def answer(self, task: Task) -> None:
        """Give an item its own data as the result."""
        task.item["result"] = torch.tensor([int(bytes(task.item["data"]))])
        task.finish()
        if task.call.after_batch is not None:
            task.call.after_batch()

    def hang_up(self) -> None:
        if self._greeting.ident is not None:
            self._greeting.join()
        if self._is_there:
            self.process.kill()
            self.process.wait()
            self.worker.close()
        self._is_there = False

    def end(self) -> None:
        """Let no attempt succeed any more."""
        self._is_over = True
        self.attempts.put(False)

    def close(self) -> None:
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
    made = RemoteNode("model", engine.connect, hang_timeout_s=0, policy=AT_ONCE)
    made.start()
    yield made
    engine.end()
    made.stop()


@pytest.fixture
def callers() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


def handed_over(data: int, deadline_s: float | None = None) -> Task:
    return Task({"data": b"%d" % data}, WaitingCall(1, deadline_s))


def wait_for_restart(node: RemoteNode) -> None:
    """Until it has seen that there is no engine process."""
    wait_until(lambda: "is being restarted" in node.why_not_ready())


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


def test_what_ends_the_process_next_takes_no_outcome_of_a_suspect_along(
    engine: Engine, node: RemoteNode
) -> None:
    task = handed_over(3)
    node.submit(task)
    engine.announced(1)
    engine.hang_up()
    engine.attempts.put(True)
    (suspect,) = engine.announced(1)
    assert suspect.call.is_suspect
    engine.worker.suspect_done = lambda _: engine.hang_up()
    suspect.item["result"] = torch.tensor([3])
    suspect.finish()
    task.call.wait()
    assert task.error is None
    assert task.item["result"].tolist() == [3]


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


def test_what_an_engine_process_had_when_it_ended_is_run_by_the_next_one(
    engine: Engine, node: RemoteNode, callers: ThreadPoolExecutor
) -> None:
    tasks = [handed_over(1), handed_over(2, time.monotonic() + TIMEOUT_S), handed_over(3)]
    calls = [submitted(callers, node, task) for task in tasks[:2]]
    engine.announced(2)
    # Not begun: nothing has read its announcement.
    node.submit(tasks[2])
    engine.hang_up()
    engine.drop_announcements()
    engine.attempts.put(False)
    wait_for_restart(node)
    tasks.append(handed_over(4))
    node.submit(tasks[3])
    engine.attempts.put(True)
    # What was not begun first, and then what was begun.
    again = engine.announced(4)
    assert [one.call.is_suspect for one in again] == [False, False, True, True]
    for one in again:
        engine.answer(one)
    for call in calls:
        call.result(TIMEOUT_S)
    for number, task in enumerate(tasks, 1):
        task.call.wait()
        assert task.error is None
        assert task.item["result"].tolist() == [number]
    assert node.why_not_ready() == ""


def test_an_item_with_which_two_engine_processes_ended_is_not_tried_again(
    engine: Engine, node: RemoteNode
) -> None:
    poison, other = handed_over(1), handed_over(2)
    node.submit(poison)
    node.submit(other)
    engine.announced(2)
    engine.hang_up()
    engine.attempts.put(True)
    # The other one waits until this one is done.
    first, second = engine.announced(2, begun=False)
    assert first.call.is_suspect
    assert second.call.is_suspect
    first.call.begin()
    engine.hang_up()
    engine.attempts.put(True)
    poison.call.wait()
    assert "ended while it worked on this item, 2 times; it is not tried again" in str(poison.error)
    (left,) = engine.announced(1)
    engine.answer(left)
    other.call.wait()
    assert other.item["result"].tolist() == [2]


def test_nothing_waits_for_an_engine_process_for_ever(engine: Engine, node: RemoteNode) -> None:
    begun, late = handed_over(1), handed_over(2, time.monotonic() + 0.01)
    node.submit(begun)
    node.submit(late)
    engine.announced(2)
    engine.hang_up()
    for _ in range(3):
        engine.attempts.put(False)
    for task in (begun, late):
        task.call.wait()
    assert "restarted, so far without success: PipelineConfigError: no engine pr" in str(
        begun.error
    )
    # Neither does what comes while it is tried again.
    node.submit(another := handed_over(3))
    assert "restarted, so far without success" in str(another.error)
    engine.attempts.put(True)
    wait_until(lambda: not node.why_not_ready())
    node.submit(last := handed_over(4))
    (arrived,) = engine.announced(1)
    engine.answer(arrived)
    last.call.wait()
    assert last.error is None


def test_what_waits_when_the_node_is_stopped_fails(engine: Engine, node: RemoteNode) -> None:
    engine.hang_up()
    wait_for_restart(node)
    node.submit(task := handed_over(1))
    engine.end()
    node.stop()
    assert isinstance(task.error, NodeError)


def test_a_stop_waits_for_no_engine_process_that_loads(
    engine: Engine, node: RemoteNode, caplog: pytest.LogCaptureFixture
) -> None:
    engine.hang_up()
    engine.is_loading = True
    engine.attempts.put(True)
    with engine.waiting.get(timeout=TIMEOUT_S):
        node.submit(task := handed_over(1))
        node.stop()
    assert isinstance(task.error, NodeError)
    assert "attempt" not in caplog.text
    engine.process.kill()
    engine.process.wait()


def test_one_that_is_stopped_while_it_loads_is_killed(engine: Engine) -> None:
    engine.is_loading = True
    node = RemoteNode("model", engine.connect, hang_timeout_s=0.2, policy=AT_ONCE)
    with ThreadPoolExecutor(1) as pool:
        start = pool.submit(node.start)
        with engine.waiting.get(timeout=TIMEOUT_S):
            engine.process.send_signal(signal.SIGSTOP)
            assert engine.process.wait(TIMEOUT_S) == -signal.SIGKILL
            with pytest.raises(PipelineConfigError, match="ended while it started"):
                start.result(TIMEOUT_S)


def test_a_stopped_engine_process_is_killed(engine: Engine) -> None:
    node = RemoteNode("model", engine.connect, hang_timeout_s=0.2, policy=AT_ONCE)
    node.start()
    try:
        node.submit(task := handed_over(1))
        engine.announced(1)
        # It gives no sign of life: nothing in this process does it for it.
        assert engine.process.wait(TIMEOUT_S) == -signal.SIGKILL
        engine.hang_up()
        engine.attempts.put(True)
        (again,) = engine.announced(1)
        engine.answer(again)
        task.call.wait()
        assert task.item["result"].tolist() == [1]
    finally:
        engine.end()
        node.stop()
