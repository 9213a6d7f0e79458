"""Runs batches of the nodes that compute on the CPU, by as many threads as there are cores.

A thread that has a core takes an item from node to node until it is done, so that its data stay in
the core's cache and no other thread is woken in between. It is a worker of the pool, or a caller
who would only wait, as long as a core is free. What runs a batch is still an instance of the node,
with its backends: so many batches of a node are at work at most. The instance's own thread only
builds, judges, rebuilds and closes them.

Which batch runs next: that of the item which is next in the oldest call, at whichever node it
waits, so that later nodes of a chain come first; an item that its queue holds back, since its
caller has had a turn, comes after those that are not. If a batch has room, and nodes before it have
items that may fill it, these come first, for `batching_timeout` at most. A core that has nothing
else to do takes what there is: no batch waits for callers to come back. But of several cores none
takes more than half of its share of all rows in the pool: while one has most of them in a batch,
the others soon have nothing to do, since callers wait for their results before they send more.
"""

from __future__ import annotations

import logging
import math
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Lock

from interfaces.error_text import in_one_line
from pipeline.runtime.pooled_queue import PooledBatch, PooledQueue, Trouble, release
from pipeline.runtime.task import Task, tell_of_batch
from service.handlers.this_thread import THIS_THREAD

logger = logging.getLogger(__name__)


class _Worker:
    """A thread of the pool.

    Attributes:
        batch: what it is to run; None where there is no more to do.
        gate: held while it has nothing to do.
    """

    def __init__(self) -> None:
        self.batch: PooledBatch | None = None
        self.gate = Lock()
        self.gate.acquire()


class CorePool:
    """Shares the cores of this process out to batches.

    Its workers are as many as instances: also where all that have a core wait for something, some
    are left.

    Args:
        cores: how many there are.

    Attributes:
        lock: that of all queues of the pool.
        cores: how many there are.
        threads: its workers.
    """

    def __init__(self, cores: int) -> None:
        self.lock = Lock()
        self.cores = cores
        self.threads: list[threading.Thread] = []
        # Below 0 while threads that had waited work without one.
        self._free = cores
        self._items_at_work = 0
        self._before: Mapping[PooledQueue, frozenset[PooledQueue]] = {}
        self._idle: list[_Worker] = []
        self._labels: set[str] = set()
        self._is_closed = False

    def arrange(self, before: Mapping[PooledQueue, frozenset[PooledQueue]]) -> None:
        """Say which queues there are, and from which of the others items come to each."""
        self._before = before

    def add_worker(self, label: str) -> None:
        """Have one more, unless there is one for the instance of that name."""
        with self.lock:
            if self._is_closed or label in self._labels:
                return
            self._labels.add(label)
            thread = threading.Thread(
                target=self._work, name=f"core-{len(self.threads)}", daemon=True
            )
            self.threads.append(thread)
        thread.start()

    def close(self) -> None:
        """End the workers; all queues are over."""
        with self.lock:
            self._is_closed = True
            for worker in self._idle:
                release(worker.gate)
        for thread in self.threads:
            thread.join()

    def run_in_caller(self, queue: PooledQueue, task: Task) -> bool:
        """Run an item that comes to a queue in the calling thread, as far as it goes.

        Returns:
            False where that cannot be, and nothing was done.
        """
        with self.lock:
            instance = queue.lend(task) if self._free > 0 else None
            if instance is None:
                return False
            self._free -= 1
            self._items_at_work += 1
        going_on: list[Task] = []
        waits, THIS_THREAD.waits = THIS_THREAD.waits, self._without_core
        try:
            while instance is not None:
                going_on = self._run(PooledBatch(instance, [task]), in_caller=True)
                queue, instance = instance.queue, None
                if going_on and queue.next is not None:
                    with self.lock:
                        instance = queue.next.lend(task)
                        if instance is not None:
                            self._items_at_work += 1
        finally:
            THIS_THREAD.waits = waits
            with self.lock:
                self._free += 1
                self.wake()
        if queue.sink is not None:
            for one in going_on:
                queue.sink.submit(one, caller_waits=True)
        return True

    def wake(self) -> None:
        """Let workers that have nothing to do run what waits, as far as there are cores."""
        while self._free > 0 and self._idle and (batch := self._next()) is not None:
            self._free -= 1
            worker = self._idle.pop()
            worker.batch = batch
            worker.gate.release()

    def share(self) -> int:
        """The most rows of a batch, so that each core has work for two; the lock is held."""
        if self.cores == 1:
            return sys.maxsize
        # An item at work counts once, however many rows it has: such items fill batches alone.
        rows = sum(queue.rows for queue in self._before if queue.is_pooled) + self._items_at_work
        return max(1, math.ceil(rows / (2 * self.cores)))

    def _work(self) -> None:
        """What a worker does, until the pool is closed."""
        THIS_THREAD.waits = self._without_core
        worker, has_core = _Worker(), False
        while True:
            with self.lock:
                # Others may work without a core: this one gives its own up for that.
                may_work = self._free >= 0 if has_core else self._free > 0
                batch = self._next() if may_work else None
                self._free += has_core - (batch is not None)
                self.wake()
                if batch is None:
                    if self._is_closed:
                        return
                    self._idle.append(worker)
            if batch is None:
                worker.gate.acquire()
                batch, worker.batch = worker.batch, None
            has_core = batch is not None
            if batch is not None:
                self._run_and_hand_on(batch)

    def _next(self) -> PooledBatch | None:
        """The batch that is to run next."""
        waiting = [queue for queue in self._before if queue.can_leave()]
        if not waiting:
            return None
        batch = self._first(waiting).leave()
        self._items_at_work += len(batch.tasks)
        return batch

    def _first(self, waiting: Sequence[PooledQueue]) -> PooledQueue:
        if len(waiting) == 1:
            return waiting[0]
        first = min(waiting, key=PooledQueue.turn)
        if not first.is_full() and not first.is_late():
            filling = [queue for queue in waiting if queue in self._before[first]]
            if filling:
                return min(filling, key=PooledQueue.turn)
        return first

    def _run_and_hand_on(self, batch: PooledBatch) -> None:
        going_on = self._run(batch, in_caller=False)
        sink = batch.instance.queue.sink
        try:
            while going_on and sink is not None:
                # From then on the item is the next node's. This thread itself goes on with it, or
                # with what comes first.
                sink.submit(going_on[0], wakes=False)
                del going_on[0]
            tell_of_batch(batch.tasks)
        except BaseException as error:
            logger.exception("%s: an error behind the node", batch.instance.label)
            batch.instance.runner.abandon(going_on, error)

    def _run(self, batch: PooledBatch, *, in_caller: bool) -> list[Task]:
        """Run a batch, and let others have the instance; the items that go on are returned.

        Raises:
            KeyboardInterrupt: in a caller's thread, for which alone it is meant.
        """
        instance, tasks = batch
        queue, runner, trouble = instance.queue, instance.runner, None
        works_for, THIS_THREAD.works_for = THIS_THREAD.works_for, queue
        going_on: list[Task] = []
        try:
            going_on = runner.run(tasks)
            if runner.failures.length >= instance.most_failures:
                trouble = Trouble(runner.failures.cause, is_broken=False)
        except BaseException as error:
            runner.abandon(tasks, error)
            if in_caller and isinstance(error, KeyboardInterrupt):
                raise
            logger.exception("%s: an error that nothing expected", instance.label)
            trouble = Trouble(in_one_line(error), is_broken=True)
        finally:
            THIS_THREAD.works_for = works_for
            with self.lock:
                self._items_at_work -= len(tasks)
                queue.give_back(instance, trouble)
                self.wake()
        return going_on

    @contextmanager
    def _without_core(self) -> Iterator[None]:
        """While a thread waits for something that others can do: they have its core."""
        with self.lock:
            self._free += 1
            self.wake()
        try:
            yield
        finally:
            with self.lock:
                self._free -= 1
