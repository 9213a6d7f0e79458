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


def sized(*rows: int) -> list[Task]:
    call = WaitingCall(len(rows), None)
    return [Task({"data": number, "request_size": size}, call) for number, size in enumerate(rows)]


def test_rows_count_and_never_overshoot_max() -> None:
    queue = BatchQueue(60_000)
    for task in sized(3, 2, 2, 5, 1):
        queue.put(task)
    batches = [[task.rows for task in queue.take(1, 4) or []] for _ in range(4)]
    # Five rows fit into no batch of four: they leave by themselves, and their node refuses them.
    assert batches == [[3], [2, 2], [5], [1]]
    assert queue.counts.by_size == {3: 1, 4: 1, 5: 1, 1: 1}


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


def test_it_waits_for_nobody_longer_than_batching_timeout() -> None:
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


def test_refused_items_go_elsewhere_until_they_are_accepted_again() -> None:
    queue, refused = filled(3), list[Task]()
    queue.refuse(refused.extend)
    for task in tasks(2):
        queue.put(task)
    assert [task.item["data"] for task in refused] == [0, 1, 2, 0, 1]
    assert len(queue) == 0
    queue.accept()
    queue.put(tasks(1)[0])
    batch = queue.take(1, 4)
    assert batch is not None
    assert len(batch) == 1
