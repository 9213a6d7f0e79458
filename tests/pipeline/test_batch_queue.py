"""When a batch leaves."""

import threading
import time

from pipeline.batch_queue import BatchQueue, LeaveReason
from pipeline.task import Task, WaitingCall


def tasks(count: int) -> list[Task]:
    call = WaitingCall(count, None)
    return [Task({"data": number}, call) for number in range(count)]


def filled(count: int, timeout_ms: float = 60_000) -> BatchQueue:
    queue = BatchQueue(timeout_ms)
    for task in tasks(count):
        queue.put(task)
    return queue


def test_a_full_batch_leaves_and_the_rest_stays() -> None:
    queue = filled(5)
    batch = queue.take(1, 4)
    assert batch is not None
    assert [task.item["data"] for task in batch] == [0, 1, 2, 3]
    assert queue.counts.by_reason == {LeaveReason.FULL: 1}
    assert queue.counts.by_size == {4: 1}


def test_an_idle_instance_gets_what_there_is_at_once() -> None:
    queue = filled(2, timeout_ms=60_000)
    batch = queue.take(1, 4)
    assert batch is not None
    assert len(batch) == 2
    assert queue.counts.by_reason == {LeaveReason.IDLE: 1}


def test_fewer_than_min_wait_for_the_oldest_items_timeout() -> None:
    queue = filled(1, timeout_ms=20)
    (first,) = queue.take(2, 4) or []
    assert (time.monotonic() - first.queued_at_s) * 1000 >= 20
    assert queue.counts.by_reason == {LeaveReason.TIMEOUT: 1}


def test_a_waiting_instance_is_woken_by_the_item_that_makes_min() -> None:
    queue = filled(1, timeout_ms=60_000)
    taken: list[list[Task] | None] = []
    instance = threading.Thread(target=lambda: taken.append(queue.take(2, 4)))
    instance.start()
    (late,) = tasks(1)
    queue.put(late)
    instance.join(30)
    assert taken[0] is not None
    assert len(taken[0]) == 2
    assert queue.counts.by_reason == {LeaveReason.IDLE: 1}


def test_closing_lets_waiting_items_leave_and_then_ends_every_take() -> None:
    queue = filled(1, timeout_ms=60_000)
    queue.close()
    assert len(queue.take(2, 4) or []) == 1
    assert queue.take(2, 4) is None


def test_every_item_leaves_once_however_many_instances_take() -> None:
    queue = BatchQueue(timeout_ms=1)
    seen: list[int] = []
    lock = threading.Lock()

    def instance() -> None:
        while (batch := queue.take(1, 3)) is not None:
            with lock:
                seen.extend(task.item["data"] for task in batch)

    instances = [threading.Thread(target=instance) for _ in range(4)]
    for thread in instances:
        thread.start()
    for task in tasks(2000):
        queue.put(task)
    queue.close()
    for thread in instances:
        thread.join(30)
    assert sorted(seen) == list(range(2000))
