"""The queue of a node on the CPU by itself: which batch a core would run next."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.errors import ClosedError
from pipeline.keys import TASK_DATA_KEY, TASK_REQUEST_SIZE_KEY
from pipeline.runtime.core_pool import CorePool
from pipeline.runtime.counts import LeaveReason
from pipeline.runtime.pooled_queue import PooledInstance, PooledQueue
from pipeline.runtime.task import Task, WaitingCall


class Threadless(CorePool):
    """A pool of which the test itself is all threads."""

    def add_worker(self, label: str) -> None:
        """None."""

    def next_batch(self) -> list[Task]:
        """The items that a core would run next, if any."""
        with self.lock:
            batch = self._next()
        return [] if batch is None else batch.tasks


def add_instance(queue: PooledQueue) -> None:
    """One for batches of up to eight rows, whose backends nobody runs."""
    runner: Any = SimpleNamespace(smallest=1, largest=8)
    queue.add(PooledInstance(queue, runner, "instance", 1))


class TestQueue:
    """A `PooledQueue` by itself."""

    @staticmethod
    def task(data: Any = 1) -> Task:
        return Task({TASK_DATA_KEY: data}, WaitingCall(1, None))

    def test_without_an_instance_a_caller_runs_nothing(self) -> None:
        pool = CorePool(1)
        assert not pool.run_in_caller(PooledQueue(pool, 0), self.task())

    @pytest.mark.parametrize(
        ("cores", "items", "sizes"),
        [
            (2, 2, [1, 1]),
            (2, 5, [2, 2, 1]),
            (2, 10, [3, 3, 3, 1]),
            (2, 40, [8, 8, 8, 8, 8]),
            (16, 32, [1] * 32),
            # Nobody else is there.
            (1, 10, [8, 2]),
        ],
    )
    def test_a_batch_takes_half_of_a_cores_share(
        self, cores: int, items: int, sizes: list[int]
    ) -> None:
        """Otherwise the other cores have nothing to do while one has most items in its batch.

        All batches are at work at the same time here, as if no core came to its end.
        """
        pool = Threadless(cores)
        queue = PooledQueue(pool, 0)
        pool.arrange({queue: frozenset()})
        for _ in range(len(sizes)):
            add_instance(queue)
        for number in range(items):
            queue.put(self.task(number))
        assert [len(pool.next_batch()) for _ in sizes] == sizes
        assert not pool.next_batch()
        reasons = queue.counts.by_reason
        assert reasons[LeaveReason.FULL] == sizes.count(8)
        assert reasons[LeaveReason.IDLE] == len(sizes) - sizes.count(8)

    def test_items_at_nodes_of_other_threads_give_the_cores_no_work(self) -> None:
        pool = Threadless(2)
        queue, other = PooledQueue(pool, 0), PooledQueue(pool, 0)
        pool.arrange({queue: frozenset(), other: frozenset()})
        add_instance(queue)
        for number in range(20):
            other.put(self.task(number))
        for number in range(4):
            queue.put(self.task(number))
        assert len(pool.next_batch()) == 1

    def test_an_item_of_several_rows_costs_the_same_turns_where_the_share_is_small(self) -> None:
        """One caller sends items of 8 rows, the other single ones: 8 of these are its equal."""
        pool = Threadless(8)
        queue = PooledQueue(pool, 0)
        pool.arrange({queue: frozenset()})
        large, small = WaitingCall(4, None), WaitingCall(16, None)
        large.caller, small.caller = 1, 2
        for _ in range(4):
            queue.put(Task({TASK_DATA_KEY: "large", TASK_REQUEST_SIZE_KEY: 8}, large))
        for _ in range(16):
            queue.put(Task({TASK_DATA_KEY: "small"}, small))
        left = []
        while len(left) < 20:
            add_instance(queue)
            left += [task.item[TASK_DATA_KEY] for task in pool.next_batch()]
        assert left[:18].count("large") <= 3

    def test_a_closed_queue_refuses(self) -> None:
        queue = PooledQueue(CorePool(1), 0)
        queue.close()
        with pytest.raises(ClosedError, match="the pipeline is closed"):
            queue.put(self.task())
