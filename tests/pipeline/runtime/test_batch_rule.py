"""When a batch leaves: the same cases for the queue of a process and that of the engine process."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from queue import SimpleQueue
from typing import TypeAlias

import pytest

from pipeline.engine_process.submission_queue import SubmissionQueue, submission
from pipeline.runtime.batch_queue import BatchQueue
from pipeline.runtime.batch_source import BatchSource
from pipeline.runtime.counts import LeaveReason
from pipeline.runtime.task import Task, WaitingCall

NEVER_MS = 60_000.0
SOON_MS = 20.0


class InProcess:
    """Items of callers in this process."""

    def __init__(self, timeout_ms: float, _: ExitStack) -> None:
        self.queue = BatchQueue(timeout_ms)
        self.source: BatchSource = self.queue

    def put(self, *tasks: Task) -> None:
        for task in tasks:
            self.queue.put(task)


class FromWorkers:
    """Items that other processes submit."""

    def __init__(self, timeout_ms: float, stack: ExitStack) -> None:
        self._tasks: list[Task] = []
        self.queue = stack.enter_context(SubmissionQueue(timeout_ms, self._task))
        self.source: BatchSource = self.queue

    def _task(self, worker: int, slot: int) -> Task:  # noqa: ARG002
        return self._tasks[slot]

    def put(self, *tasks: Task) -> None:
        for task in tasks:
            task.queued_at_s = time.monotonic()
            self._tasks.append(task)
            os.write(self.queue.writer, submission(0, len(self._tasks) - 1))


Kind: TypeAlias = type[InProcess] | type[FromWorkers]
pytestmark = pytest.mark.parametrize("kind", [InProcess, FromWorkers])


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def tasks(*rows: int) -> list[Task]:
    """Items of so many rows each, of one call."""
    call = WaitingCall(len(rows), None)
    return [Task({"data": number, "request_size": size}, call) for number, size in enumerate(rows)]


def numbers(batch: list[Task] | None) -> list[int]:
    assert batch is not None
    return [task.item["data"] for task in batch]


def test_a_full_batch_leaves_and_the_rest_stays(kind: Kind, stack: ExitStack) -> None:
    waiting = kind(NEVER_MS, stack)
    waiting.put(*tasks(1, 1, 1, 1, 1))
    assert numbers(waiting.source.take(1, 4)) == [0, 1, 2, 3]
    assert waiting.source.counts.by_reason == {LeaveReason.FULL: 1}
    assert waiting.source.counts.by_size == {4: 1}
    assert numbers(waiting.source.take(1, 4)) == [4]


def test_an_idle_instance_gets_what_there_is_at_once(kind: Kind, stack: ExitStack) -> None:
    waiting = kind(NEVER_MS, stack)
    waiting.put(*tasks(1, 1))
    assert numbers(waiting.source.take(1, 4)) == [0, 1]
    assert waiting.source.counts.by_reason == {LeaveReason.IDLE: 1}


def test_fewer_than_min_wait_for_the_oldest_items_timeout(kind: Kind, stack: ExitStack) -> None:
    waiting = kind(SOON_MS, stack)
    (first,) = tasks(1)
    waiting.put(first)
    assert numbers(waiting.source.take(2, 4)) == [0]
    assert (time.monotonic() - first.queued_at_s) * 1000 >= SOON_MS
    assert waiting.source.counts.by_reason == {LeaveReason.TIMEOUT: 1}


def test_an_instance_that_waits_is_woken_by_the_item_that_makes_min(
    kind: Kind, stack: ExitStack
) -> None:
    waiting = kind(NEVER_MS, stack)
    first, second = tasks(1, 1)
    waiting.put(first)
    taken: SimpleQueue[list[Task] | None] = SimpleQueue()
    instance = threading.Thread(target=lambda: taken.put(waiting.source.take(2, 4)))
    instance.start()
    waiting.put(second)
    assert numbers(taken.get(timeout=30)) == [0, 1]
    instance.join()
    assert waiting.source.counts.by_reason == {LeaveReason.IDLE: 1}


@pytest.mark.parametrize(
    ("rows", "smallest", "batches"),
    [
        ((3, 3, 3), 1, [[3], [3], [3]]),
        ((3, 2), 2, [[3], [2]]),
        ((1, 3, 2, 2), 4, [[1, 3], [2, 2]]),
        # Five rows fit into no batch of four: they leave alone, and their node refuses them.
        ((3, 2, 2, 5, 1), 1, [[3], [2, 2], [5], [1]]),
    ],
)
def test_rows_count_and_never_exceed_max(
    kind: Kind, stack: ExitStack, rows: tuple[int, ...], smallest: int, batches: list[list[int]]
) -> None:
    waiting = kind(NEVER_MS, stack)
    waiting.put(*tasks(*rows))
    taken = [waiting.source.take(smallest, 4) or [] for _ in batches]
    assert [[task.rows for task in batch] for batch in taken] == batches
    by_size = waiting.source.counts.by_size
    assert by_size.total() == len(batches)
    assert sum(size * count for size, count in by_size.items()) == sum(rows)


def test_closing_lets_what_waits_leave_and_then_ends_every_take(
    kind: Kind, stack: ExitStack
) -> None:
    waiting = kind(NEVER_MS, stack)
    waiting.put(*tasks(1, 1))
    waiting.source.close()
    assert numbers(waiting.source.take(1, 1)) == [0]
    assert numbers(waiting.source.take(2, 4)) == [1]
    assert waiting.source.take(1, 4) is None
    assert waiting.source.take(2, 4) is None
    assert waiting.source.counts.by_reason == {LeaveReason.FULL: 1, LeaveReason.TIMEOUT: 1}


def test_every_item_leaves_once_however_many_instances_take(kind: Kind, stack: ExitStack) -> None:
    waiting = kind(1, stack)
    seen: list[int] = []
    lock = threading.Lock()

    def instance() -> None:
        while (batch := waiting.source.take(1, 3)) is not None:
            with lock:
                seen.extend(numbers(batch))

    instances = [threading.Thread(target=instance) for _ in range(4)]
    for thread in instances:
        thread.start()
    waiting.put(*tasks(*[1] * 1000))
    waiting.source.close()
    for thread in instances:
        thread.join(30)
    assert sorted(seen) == list(range(1000))
    counts = waiting.source.counts
    assert counts.by_size.total() == counts.by_reason.total()


def test_refused_items_go_elsewhere_until_they_are_accepted_again(
    kind: Kind, stack: ExitStack
) -> None:
    waiting = kind(NEVER_MS, stack)
    first, second, third, fourth = tasks(1, 1, 1, 1)
    refused: SimpleQueue[Task] = SimpleQueue()

    def refuse() -> None:
        waiting.source.refuse(lambda some: [refused.put(task) for task in some])

    waiting.put(first)
    refuse()
    waiting.put(second)
    assert numbers([refused.get(timeout=30) for _ in range(2)]) == [0, 1]
    waiting.source.accept()
    waiting.put(third)
    assert numbers(waiting.source.take(1, 4)) == [2]
    refuse()
    waiting.put(fourth)
    assert numbers([refused.get(timeout=30)]) == [3]
