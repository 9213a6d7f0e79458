"""Batches of items that other processes submit on a pipe."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from queue import SimpleQueue

import pytest

from pipeline.engine_process.submission_queue import SubmissionQueue, submission
from pipeline.runtime.counts import LeaveReason
from pipeline.runtime.task import Task, WaitingCall

GONE = 7
TIMEOUT_MS = 20.0


def task_of(worker: int, slot: int) -> Task | None:
    if worker == GONE:
        return None
    call = WaitingCall(1, None)
    call.caller, call.is_alone = worker, False
    task = Task({"data": (worker, slot)}, call)
    task.queued_at_s = time.monotonic()
    return task


@pytest.fixture
def items() -> Iterator[SubmissionQueue]:
    with SubmissionQueue(TIMEOUT_MS, task_of) as submitted:
        yield submitted


def submit(items: SubmissionQueue, *pairs: tuple[int, int]) -> None:
    os.write(items.writer, b"".join(submission(*pair) for pair in pairs))


def taken(items: SubmissionQueue, smallest: int, largest: int) -> list[tuple[int, int]] | None:
    batch = items.take(smallest, largest)
    return None if batch is None else [task.item["data"] for task in batch]


def test_an_idle_instance_takes_what_is_there_and_no_more_than_its_max(
    items: SubmissionQueue,
) -> None:
    submit(items, (0, 5), (3, 2**32 - 1), (2**20, 0))
    assert taken(items, 1, 2) == [(0, 5), (3, 2**32 - 1)]
    assert taken(items, 1, 2) == [(2**20, 0)]
    assert items.counts.by_reason == {LeaveReason.FULL: 1, LeaveReason.IDLE: 1}
    assert items.counts.by_size == {2: 1, 1: 1}


def test_items_of_a_worker_that_has_gone_are_passed_over(items: SubmissionQueue) -> None:
    submit(items, (GONE, 1), (1, 1))
    assert taken(items, 1, 8) == [(1, 1)]
    submit(items, (GONE, 2))
    submit(items, (2, 2))
    assert taken(items, 1, 1) == [(2, 2)]


def test_every_item_is_taken_once_by_some_instance(items: SubmissionQueue) -> None:
    submitted = [(worker, slot) for worker in range(3) for slot in range(400)]
    found: list[list[tuple[int, int]]] = [[] for _ in range(4)]

    def take_all(mine: list[tuple[int, int]]) -> None:
        while (batch := taken(items, 1, 5)) is not None:
            mine += batch

    def submit_all(worker: int) -> None:
        for slot in range(400):
            submit(items, (worker, slot))

    instances = [threading.Thread(target=take_all, args=(mine,)) for mine in found]
    workers = [threading.Thread(target=submit_all, args=(worker,)) for worker in range(3)]
    for thread in (*instances, *workers):
        thread.start()
    for thread in workers:
        thread.join()
    items.close()
    for thread in instances:
        thread.join()
    assert sorted(one for mine in found for one in mine) == submitted
    assert items.counts.by_size.total() == sum(items.counts.by_reason.values())


def test_items_of_a_caller_with_few_pass_those_of_a_caller_with_many(
    items: SubmissionQueue,
) -> None:
    """The worker stands for the caller here."""
    submit(items, *((1, slot) for slot in range(6)), (2, 0))
    assert taken(items, 1, 2) == [(1, 0), (2, 0)]
    submit(items, (2, 1), (3, 0))
    assert taken(items, 1, 3) == [(3, 0), (1, 1), (2, 1)]
    assert taken(items, 1, 8) == [(1, slot) for slot in range(2, 6)]


def test_suspects_leave_one_at_a_time_while_others_pass_them() -> None:
    tasks: dict[int, Task] = {}

    def suspects(worker: int, slot: int) -> Task:
        tasks[slot] = task = task_of(worker, slot)
        assert task is not None
        task.call.is_suspect = worker == 0
        return task

    with SubmissionQueue(60_000, suspects) as items:
        submit(items, (0, 0), (1, 1), (0, 2), (1, 3))
        assert taken(items, 1, 8) == [(0, 0)]
        assert taken(items, 2, 8) == [(1, 1), (1, 3)]
        found: SimpleQueue[list[tuple[int, int]] | None] = SimpleQueue()
        idle = threading.Thread(target=lambda: found.put(taken(items, 1, 8)))
        idle.start()
        submit(items, (1, 4))
        assert found.get(timeout=30) == [(1, 4)]
        idle.join()
        tasks[0].call.is_alone = True
        tasks[0].finish()
        # Until its worker knows the outcome, what ends the process would take that along.
        submit(items, (1, 6))
        assert taken(items, 1, 8) == [(1, 6)]
        idle = threading.Thread(target=lambda: found.put(taken(items, 1, 8)))
        idle.start()
        items.suspect_done(tasks[0])
        assert found.get(timeout=30) == [(0, 2)]
        idle.join()
        # It is never done, and in the end nothing waits for what is behind it.
        submit(items, (0, 5))
        items.close()
        assert taken(items, 1, 8) == [(0, 5)]
        assert taken(items, 1, 8) is None


def test_a_suspect_whose_time_is_over_holds_up_no_other() -> None:
    def suspect(worker: int, slot: int) -> Task:
        task = task_of(worker, slot)
        assert task is not None
        task.call.is_suspect = True
        task.call.deadline_s = time.monotonic() + 0.02
        return task

    with SubmissionQueue(60_000, suspect) as items:
        submit(items, (0, 0), (0, 1))
        assert taken(items, 1, 8) == [(0, 0)]
        assert taken(items, 1, 8) == [(0, 1)]


def test_an_instance_that_waits_gets_what_another_one_has_left(items: SubmissionQueue) -> None:
    """All of it was submitted to one of them."""
    found: SimpleQueue[list[tuple[int, int]] | None] = SimpleQueue()
    instances = [
        threading.Thread(target=lambda: found.put(taken(items, 1, 2)), daemon=True)
        for _ in range(3)
    ]
    for thread in instances:
        thread.start()
    submit(items, *((0, slot) for slot in range(6)))
    batches = [found.get(timeout=30) for _ in instances]
    assert sorted(one for batch in batches for one in batch or []) == [(0, n) for n in range(6)]
