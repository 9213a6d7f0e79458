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
else to do takes what there is: no batch waits for callers to come back.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from threading import Lock
from typing import NamedTuple

from interfaces.error_text import in_one_line
from pipeline.runtime.batch_queue import BatchQueue
from pipeline.runtime.batch_rule import BatchRule
from pipeline.runtime.batch_runner import BatchRunner
from pipeline.runtime.batch_source import Sink
from pipeline.runtime.fair_order import FairOrder
from pipeline.runtime.idle_instance import best_fit
from pipeline.runtime.task import Task, tell_of_batch
from service.handlers.this_thread import THIS_THREAD

logger = logging.getLogger(__name__)


class Trouble(NamedTuple):
    """Why an instance's own thread has to look after it.

    Attributes:
        cause: what its backend raised.
        is_broken: whether it is broken for sure, or only gave no result several times.
    """

    cause: str
    is_broken: bool


class PooledInstance:
    """An instance whose backends the pool's threads use.

    Attributes:
        queue: that of its node.
        runner: its backends, used by one thread at a time.
        smallest: fewest rows that it wants.
        largest: most rows that it takes.
        most_failures: batches without any result after which it is doubtful.
        label: its name in the log.
        trouble: why no thread of the pool gets it any more, or None.
        gate: held while its own thread has nothing to do.
    """

    __slots__ = (
        *("gate", "label", "largest", "most_failures", "queue", "runner", "smallest", "trouble"),
    )

    def __init__(
        self, queue: PooledQueue, runner: BatchRunner, label: str, most_failures: int
    ) -> None:
        self.queue = queue
        self.runner = runner
        self.smallest, self.largest = runner.smallest, runner.largest
        self.most_failures = most_failures
        self.label = label
        self.trouble: Trouble | None = None
        self.gate = Lock()
        self.gate.acquire()


class _Batch(NamedTuple):
    instance: PooledInstance
    tasks: list[Task]


class PooledQueue(BatchQueue):
    """The queue of a node on the CPU.

    Instances whose backends belong to their thread take from it as from any other queue.

    Args:
        pool: that of the pipeline.
        timeout_ms: as for a `BatchQueue`.
        make_rule: as for a `BatchQueue`.

    Attributes:
        is_pooled: whether the pool runs its batches, or some of them.
        sink: where results go; None if their way ends here.
        next: the queue of the node where they go, if that is in the same pool.
    """

    def __init__(
        self,
        pool: CorePool,
        timeout_ms: float,
        make_rule: Callable[[FairOrder, float], BatchRule] = BatchRule,
    ) -> None:
        super().__init__(timeout_ms, make_rule, pool.lock)
        self._pool = pool
        self.is_pooled = False
        self.sink: Sink | None = None
        self.next: PooledQueue | None = None
        # The instances that no thread uses.
        self._ready: list[PooledInstance] = []
        self._largest: set[int] = set()

    @property
    def idle_instances(self) -> int:
        """How many instances wait for a batch, or for a thread."""
        return super().idle_instances + len(self._ready)

    def run_in_caller(self, task: Task) -> bool:
        """Run an item, as far as it goes, in the calling thread; False where that cannot be."""
        return self._pool.run_in_caller(self, task)

    def add(self, own: PooledInstance) -> None:
        """Let the pool use an instance; its thread calls `wait` then."""
        self.is_pooled = True
        self._pool.add_worker(own.label)
        with self._pool.lock:
            self._ready.append(own)
            self._largest.add(own.largest)
            self._pool.wake()

    def wait(self, own: PooledInstance) -> Trouble | None:
        """Block until an instance's own thread is needed; None once all is closed."""
        while True:
            with self._pool.lock:
                if own.trouble is not None:
                    return own.trouble
                if self.is_over and own in self._ready:
                    self._ready.remove(own)
                    return None
            own.gate.acquire()

    def done(self, batch: list[Task], batch_s: float) -> None:
        """As for a `BatchQueue`; the pool waits for no callers that come back."""
        if not self.is_pooled:
            super().done(batch, batch_s)

    def close(self) -> None:
        """Let the waiting items leave at once and end every `take` and `wait` after them."""
        super().close()
        with self._pool.lock:
            self._look_if_over()

    # The lock is held from here on.

    @property
    def is_over(self) -> bool:
        """Whether nothing waits, and nothing will."""
        return self._rule.is_closing and not self._order.rows

    def lend(self, task: Task) -> PooledInstance | None:
        """An instance for an item that need not wait, or None where it must."""
        if not self._ready or self._order.rows or self._refused is not None:
            return None
        instance = self._remove(task.rows)
        task.queued_at_s = time.monotonic()
        task.began_s = task.began_s or task.queued_at_s
        self._rule.leaves_alone(task, instance.largest)
        return instance

    def give_back(self, instance: PooledInstance, trouble: Trouble | None) -> None:
        """A thread has run a batch with an instance."""
        if trouble is None:
            self._ready.append(instance)
        else:
            instance.trouble = trouble
            _release(instance.gate)
        self._look_if_over()

    def can_leave(self) -> bool:
        """Whether a batch could be run."""
        return bool(self._order.rows and self._ready)

    def is_full(self) -> bool:
        """Whether the batch that could be run has no room for more items."""
        return self._order.rows >= self._fitting(self._order.rows).largest

    def is_late(self) -> bool:
        """Whether it has waited for `batching_timeout`."""
        return self._rule.is_late(time.monotonic())

    def turn(self) -> tuple[bool, float]:
        """Of several queues that with the least is next."""
        return self._order.is_held_back(), self._order.first().began_s

    def leave(self) -> _Batch:
        """The batch."""
        instance = self._fitting(self._order.rows)
        # No caller is waited for, so that the time does not matter.
        tasks = self._rule.take(instance.smallest, instance.largest, 0.0)
        assert tasks is not None  # noqa: S101 (some wait, and pooled instances want no fewer than 1)
        self._ready.remove(instance)
        return _Batch(instance, tasks)

    def _fitting(self, rows: int) -> PooledInstance:
        # The last one has the warmest memory.
        return self._ready[-1] if len(self._largest) == 1 else best_fit(self._ready, rows)

    def _remove(self, rows: int) -> PooledInstance:
        instance = self._fitting(rows)
        self._ready.remove(instance)
        return instance

    def _look_if_over(self) -> None:
        """Let the threads of instances that nothing will use any more end."""
        if self.is_over:
            for instance in self._ready:
                _release(instance.gate)

    def _let_leave(self, now_s: float, *, wakes: bool) -> None:
        super()._let_leave(now_s, wakes=wakes)
        if wakes:
            self._pool.wake()


def _release(gate: Lock) -> None:
    if gate.locked():
        gate.release()


class _Worker:
    """A thread of the pool.

    Attributes:
        batch: what it is to run; None where there is no more to do.
        gate: held while it has nothing to do.
    """

    def __init__(self) -> None:
        self.batch: _Batch | None = None
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
                _release(worker.gate)
        for thread in self.threads:
            thread.join()

    def run_in_caller(self, queue: PooledQueue, task: Task) -> bool:
        """See `PooledQueue.run_in_caller`."""
        with self.lock:
            instance = queue.lend(task) if self._free > 0 else None
            if instance is None:
                return False
            self._free -= 1
        going_on: list[Task] = []
        waits, THIS_THREAD.waits = THIS_THREAD.waits, self._without_core
        try:
            while instance is not None:
                going_on = self._run(_Batch(instance, [task]), in_caller=True)
                queue, instance = instance.queue, None
                if going_on and queue.next is not None:
                    with self.lock:
                        instance = queue.next.lend(task)
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

    def _next(self) -> _Batch | None:
        """The batch that is to run next."""
        waiting = [queue for queue in self._before if queue.can_leave()]
        if not waiting:
            return None
        if len(waiting) == 1:
            return waiting[0].leave()
        first = min(waiting, key=PooledQueue.turn)
        if not first.is_full() and not first.is_late():
            filling = [queue for queue in waiting if queue in self._before[first]]
            if filling:
                first = min(filling, key=PooledQueue.turn)
        return first.leave()

    def _run_and_hand_on(self, batch: _Batch) -> None:
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

    def _run(self, batch: _Batch, *, in_caller: bool) -> list[Task]:
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
