"""Which instance gets a batch, and for whom it waits; `test_batch_rule` has when one leaves."""

import threading
import time

from pipeline.runtime.batch_queue import BatchQueue
from pipeline.runtime.counts import LeaveReason
from pipeline.runtime.task import Task, WaitingCall


def tasks(count: int) -> list[Task]:
    call = WaitingCall(count, None)
    return [Task({"data": number}, call) for number in range(count)]


def sized(*rows: int) -> list[Task]:
    call = WaitingCall(len(rows), None)
    return [Task({"data": number, "request_size": size}, call) for number, size in enumerate(rows)]


def test_the_smallest_instance_that_holds_what_is_there_gets_it() -> None:
    queue = BatchQueue(60_000)
    taken: dict[int, list[Task] | None] = {}

    def instance(largest: int) -> None:
        taken[largest] = queue.take(1, largest)

    instances = [threading.Thread(target=instance, args=(largest,)) for largest in (8, 2, 4)]
    for thread in instances:
        thread.start()
    end_s = time.monotonic() + 30
    while queue.idle_instances < 3:
        assert time.monotonic() < end_s
    for task in sized(3, 1, 1):
        queue.put(task)
    for thread in instances:
        thread.join(30)
    sizes = {largest: [task.rows for task in batch or []] for largest, batch in taken.items()}
    assert sizes == {4: [3], 2: [1], 8: [1]}


def finish_batch(queue: BatchQueue, size: int, batch_s: float) -> None:
    """Let a batch leave and come back as if it had taken so long."""
    for task in tasks(size):
        queue.put(task)
    batch = queue.take(1, size)
    assert batch is not None
    queue.done(batch, batch_s)


def test_after_a_batch_an_instance_waits_for_those_that_come_back() -> None:
    queue = BatchQueue(60_000)
    # A tenth of an hour is long enough for anything.
    finish_batch(queue, 3, batch_s=3600.0)
    taken: list[list[Task] | None] = []
    instance = threading.Thread(target=lambda: taken.append(queue.take(1, 8)))
    instance.start()
    for task in tasks(3):
        assert not taken
        queue.put(task)
    instance.join(30)
    assert taken[0] is not None
    assert len(taken[0]) == 3
    assert queue.counts.by_reason[LeaveReason.IDLE] == 1


def test_it_waits_no_longer_than_batching_timeout() -> None:
    queue = BatchQueue(timeout_ms=20)
    finish_batch(queue, 3, batch_s=3600.0)
    (one,) = tasks(1)
    queue.put(one)
    assert len(queue.take(1, 8) or []) == 1
    queue = BatchQueue(timeout_ms=0)
    finish_batch(queue, 3, batch_s=3600.0)
    queue.put(one)
    assert len(queue.take(1, 8) or []) == 1


def taken_by_one_that_waits_already(queue: BatchQueue, smallest: int) -> list[Task] | None:
    """The batch of an instance that is idle when a single item comes."""
    taken: list[list[Task] | None] = []
    instance = threading.Thread(target=lambda: taken.append(queue.take(smallest, 8)))
    instance.start()
    end_s = time.monotonic() + 30
    while not queue.idle_instances:
        assert time.monotonic() < end_s
    queue.put(*tasks(1))
    instance.join(30)
    return taken[0]


def test_one_that_comes_while_an_instance_already_waits_is_not_forgotten() -> None:
    queue = BatchQueue(timeout_ms=20)
    finish_batch(queue, 3, batch_s=3600.0)
    assert len(taken_by_one_that_waits_already(queue, smallest=1) or []) == 1


def test_fewer_than_min_are_not_forgotten_either() -> None:
    assert len(taken_by_one_that_waits_already(BatchQueue(timeout_ms=20), smallest=2) or []) == 1
