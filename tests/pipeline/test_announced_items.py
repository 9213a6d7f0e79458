"""Batches of items that other processes announce on a pipe."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from queue import SimpleQueue

import pytest

from pipeline.batch_queue import LeaveReason
from pipeline.engine_process.announced_items import AnnouncedItems, announcement
from pipeline.task import Task, WaitingCall

GONE = 7
TIMEOUT_MS = 20.0


def task_of(worker: int, slot: int) -> Task | None:
    if worker == GONE:
        return None
    task = Task({"data": (worker, slot)}, WaitingCall(1, None))
    task.queued_at_s = time.monotonic()
    return task


@pytest.fixture
def items() -> Iterator[AnnouncedItems]:
    with AnnouncedItems(TIMEOUT_MS, task_of) as announced:
        yield announced


def announce(items: AnnouncedItems, *pairs: tuple[int, int]) -> None:
    os.write(items.writer, b"".join(announcement(*pair) for pair in pairs))


def taken(items: AnnouncedItems, smallest: int, largest: int) -> list[tuple[int, int]] | None:
    batch = items.take(smallest, largest)
    return None if batch is None else [task.item["data"] for task in batch]


def test_an_idle_instance_takes_what_is_there_and_no_more_than_its_max(
    items: AnnouncedItems,
) -> None:
    announce(items, (0, 5), (3, 2**32 - 1), (2**20, 0))
    assert taken(items, 1, 2) == [(0, 5), (3, 2**32 - 1)]
    assert taken(items, 1, 2) == [(2**20, 0)]
    assert items.counts.by_reason == {LeaveReason.FULL: 1, LeaveReason.IDLE: 1}
    assert items.counts.by_size == {2: 1, 1: 1}


def test_items_of_a_worker_that_has_gone_are_passed_over(items: AnnouncedItems) -> None:
    announce(items, (GONE, 1), (1, 1))
    assert taken(items, 1, 8) == [(1, 1)]
    announce(items, (GONE, 2))
    announce(items, (2, 2))
    assert taken(items, 1, 1) == [(2, 2)]


def test_fewer_than_min_leave_after_the_timeout(items: AnnouncedItems) -> None:
    announce(items, (0, 1))
    assert taken(items, 3, 4) == [(0, 1)]
    announce(items, (0, 1), (0, 2), (0, 3))
    assert taken(items, 3, 4) == [(0, 1), (0, 2), (0, 3)]
    assert items.counts.by_reason == {LeaveReason.TIMEOUT: 1, LeaveReason.IDLE: 1}


def test_a_batch_below_min_is_filled_up_by_what_comes_in_time() -> None:
    with AnnouncedItems(60_000, task_of) as items:
        announce(items, (0, 1))
        later = threading.Thread(target=lambda: announce(items, (0, 2)))
        later.start()
        assert taken(items, 2, 4) == [(0, 1), (0, 2)]
        later.join()


def test_what_was_announced_is_still_taken_after_the_end(items: AnnouncedItems) -> None:
    announce(items, (0, 1), (0, 2))
    items.close()
    assert taken(items, 1, 1) == [(0, 1)]
    assert taken(items, 2, 4) == [(0, 2)]
    assert taken(items, 1, 4) is None
    assert taken(items, 2, 4) is None


def test_every_item_is_taken_once_by_some_instance(items: AnnouncedItems) -> None:
    announced = [(worker, slot) for worker in range(3) for slot in range(400)]
    found: list[list[tuple[int, int]]] = [[] for _ in range(4)]

    def take_all(mine: list[tuple[int, int]]) -> None:
        while (batch := taken(items, 1, 5)) is not None:
            mine += batch

    def announce_all(worker: int) -> None:
        for slot in range(400):
            announce(items, (worker, slot))

    instances = [threading.Thread(target=take_all, args=(mine,)) for mine in found]
    workers = [threading.Thread(target=announce_all, args=(worker,)) for worker in range(3)]
    for thread in (*instances, *workers):
        thread.start()
    for thread in workers:
        thread.join()
    items.close()
    for thread in instances:
        thread.join()
    assert sorted(one for mine in found for one in mine) == announced
    assert items.counts.by_size.total() == sum(items.counts.by_reason.values())


def test_refused_items_go_elsewhere_until_they_are_accepted_again(items: AnnouncedItems) -> None:
    refused: SimpleQueue[Task] = SimpleQueue()

    def keep(tasks: Sequence[Task]) -> None:
        for task in tasks:
            refused.put(task)

    announce(items, (1, 1))
    items.refuse(keep)
    announce(items, (1, 2))
    assert [refused.get(timeout=30).item["data"] for _ in range(2)] == [(1, 1), (1, 2)]
    items.accept()
    announce(items, (1, 3))
    assert taken(items, 1, 4) == [(1, 3)]
    # The next time ends with the items' own end.
    items.refuse(keep)
    announce(items, (1, 4))
    assert refused.get(timeout=30).item["data"] == (1, 4)
