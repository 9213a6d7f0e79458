"""Runs batches of the nodes that compute on the CPU, by as many threads as there are cores.

A thread that has a core takes an item from node to node until it is done, so that its data stay in
the core's cache and no other thread is woken in between. It is any thread that there is: one of an
instance, of whichever node, or that of a caller who would only wait. What runs a batch is still an
instance of the node, with its backends: so many batches of a node are at work at most.

Which batch runs next: a full one of the last node that has one. If only fewer items wait there than
a batch takes, the nodes before it come first, which may fill it, for `batching_timeout` at most.
Instances here never wait for items: a core that has nothing else to do takes what there is.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
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
from service.images.decode_memory import THIS_THREAD

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
    """An instance whose backends any thread may use that has a core.

    Attributes:
        queue: that of its node.
        runner: its backends, used by one thread at a time.
        largest: most rows that it takes.
        most_failures: batches without any result after which it is doubtful.
        label: its name in the log.
        trouble: why no other thread gets it any more, or None.
        batch: what its own thread is to run, and with which instance; None where that is to look
            what it has to do.
        gate: held while its own thread has nothing to do.
    """

    __slots__ = (
        "batch",
        "gate",
        "label",
        "largest",
        "most_failures",
        "queue",
        "runner",
        "smallest",
        "trouble",
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
        self.batch: _Batch | None = None
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
        sink: where results go; None if their way ends here.
        next: the queue of the node where they go, if that is in the same pool.
        ready: the instances that the pool may use.
    """

    def __init__(
        self,
        pool: CorePool,
        timeout_ms: float,
        make_rule: Callable[[FairOrder, float], BatchRule] = BatchRule,
    ) -> None:
        super().__init__(timeout_ms, make_rule, pool.lock)
        self._pool = pool
        self._has_pooled = False
        self.sink: Sink | None = None
        self.next: PooledQueue | None = None
        self.ready: list[PooledInstance] = []

    def run_in_caller(self, task: Task) -> bool:
        """Run an item, as far as it goes, in the calling thread; False where that cannot be."""
        return self._pool.run_in_caller(self, task)

    def serve(self, own: PooledInstance) -> Trouble | None:
        """The work of an instance's thread, until its own backends need it, or all is closed."""
        self._has_pooled = True
        return self._pool.serve(own)

    def done(self, batch: list[Task], batch_s: float) -> None:
        """As for a `BatchQueue`; the pool waits for no callers that come back."""
        if not self._has_pooled:
            super().done(batch, batch_s)

    def close(self) -> None:
        """Let the waiting items leave at once and end every `take` and `serve` after them."""
        super().close()
        self._pool.look(self)

    # The lock is held from here on.

    @property
    def is_over(self) -> bool:
        """Whether nothing waits, and nothing will."""
        return self._rule.is_closing and not self._order.rows

    def lend(self, task: Task) -> PooledInstance | None:
        """An instance for an item that need not wait, or None where it must."""
        if not self.ready or self._order.rows or self._refused is not None:
            return None
        instance = self.ready.pop()
        task.queued_at_s = time.monotonic()
        self._rule.leaves_alone(task, instance.largest)
        return instance

    def can_leave(self) -> bool:
        """Whether a batch could be run."""
        return bool(self._order.rows and self.ready)

    def is_full(self) -> bool:
        """Whether the batch that could be run need not, or must not, wait for more items."""
        return self._order.rows >= self.ready[-1].largest

    def is_late(self) -> bool:
        """Whether it has waited for `batching_timeout`."""
        return self._rule.is_late(time.monotonic())

    def leave(self) -> _Batch:
        """The batch."""
        ready = self.ready
        instance = ready[-1]
        if instance.largest != ready[0].largest:
            instance = best_fit(ready, self._order.rows)
        ready.remove(instance)
        # No caller is waited for, so that the time does not matter.
        tasks = self._rule.take(instance.smallest, instance.largest, 0.0)
        assert tasks is not None  # noqa: S101 (some wait, and pooled instances want no fewer than 1)
        return _Batch(instance, tasks)

    def _let_leave(self, now_s: float, *, wakes: bool) -> None:
        super()._let_leave(now_s, wakes=wakes)
        if wakes:
            self._pool.wake()


class CorePool:
    """Shares the cores of this process out to batches.

    Args:
        cores: how many there are.

    Attributes:
        lock: that of all queues of the pool.
    """

    def __init__(self, cores: int) -> None:
        self.lock = Lock()
        # Below 0 while threads that had waited for memory work without one.
        self._free = cores
        # Later nodes first.
        self._queues: Sequence[PooledQueue] = ()
        # Of those whose threads have nothing to do.
        self._parked: list[PooledInstance] = []

    def arrange(self, queues: Sequence[PooledQueue]) -> None:
        """Say which queues there are, those of later nodes first."""
        self._queues = queues

    def run_in_caller(self, queue: PooledQueue, task: Task) -> bool:
        """See `PooledQueue.run_in_caller`."""
        with self.lock:
            instance = queue.lend(task) if self._free > 0 else None
            if instance is None:
                return False
            self._free -= 1
        THIS_THREAD.waits_for_memory = self._without_core
        going_on: list[Task] = []
        try:
            while instance is not None:
                batch = _Batch(instance, [task])
                going_on = self._run(batch)
                queue, instance = instance.queue, None
                if going_on and queue.next is not None:
                    with self.lock:
                        instance = queue.next.lend(task)
        finally:
            THIS_THREAD.waits_for_memory = nullcontext
            with self.lock:
                self._free += 1
                self.wake()
        if queue.sink is not None:
            for one in going_on:
                queue.sink.submit(one, caller_waits=True)
        return True

    def serve(self, own: PooledInstance) -> Trouble | None:
        """See `PooledQueue.serve`."""
        THIS_THREAD.waits_for_memory = self._without_core
        with self.lock:
            own.queue.ready.append(own)
        has_core = False
        while True:
            with self.lock:
                if self._free < 0 and has_core:
                    self._free += 1
                    has_core = False
                batch = None
                is_needed = self._needs_its_thread(own)
                if not is_needed and (has_core or self._free > 0):
                    batch = self._next()
                if (batch is not None) != has_core:
                    has_core = batch is not None
                    self._free += -1 if has_core else 1
                self.wake()
                if is_needed:
                    return own.trouble
                if batch is None:
                    self._parked.append(own)
            if batch is None:
                own.gate.acquire()
                batch, own.batch = own.batch, None
                has_core = batch is not None
            if batch is not None:
                going_on = self._run(batch)
                sink = batch.instance.queue.sink
                if sink is not None:
                    for task in going_on:
                        # This thread itself goes on with it, or with what comes first.
                        sink.submit(task, wakes=False)
                tell_of_batch(batch.tasks)

    def wake(self) -> None:
        """Let threads that have nothing to do run what waits, as far as there are cores."""
        while self._free > 0 and self._parked and (batch := self._next()) is not None:
            self._free -= 1
            instance = self._parked.pop()
            instance.batch = batch
            instance.gate.release()

    def look(self, queue: PooledQueue) -> None:
        """Let the threads of a queue's instances look what they have to do."""
        with self.lock:
            self._look(queue)

    def _look(self, queue: PooledQueue) -> None:
        for instance in [one for one in self._parked if one.queue is queue]:
            self._parked.remove(instance)
            instance.gate.release()

    def _needs_its_thread(self, own: PooledInstance) -> bool:
        """Whether the thread of an instance must do nothing else; no other gets that one then."""
        if own.trouble is not None:
            return True
        if not own.queue.is_over or own not in own.queue.ready:
            return False
        own.queue.ready.remove(own)
        return True

    def _next(self) -> _Batch | None:
        """The batch that is to run next."""
        waiting: PooledQueue | None = None
        for queue in self._queues:
            if not queue.can_leave():
                continue
            if waiting is not None or queue.is_full() or queue.is_late():
                return queue.leave()
            waiting = queue
        return None if waiting is None else waiting.leave()

    def _run(self, batch: _Batch) -> list[Task]:
        """Run a batch, and let others have the instance; the items that go on are returned."""
        instance, tasks = batch
        runner, trouble = instance.runner, None
        going_on: list[Task] = []
        try:
            going_on = runner.run(tasks)
            if runner.failures.length >= instance.most_failures:
                trouble = Trouble(runner.failures.cause, is_broken=False)
        except BaseException as error:
            runner.abandon(tasks, error)
            tell_of_batch(tasks)
            if isinstance(error, KeyboardInterrupt):
                raise
            logger.exception("%s: an error that nothing expected", instance.label)
            trouble = Trouble(in_one_line(error), is_broken=True)
        finally:
            with self.lock:
                queue = instance.queue
                instance.trouble = trouble
                if trouble is None:
                    queue.ready.append(instance)
                if trouble is not None or queue.is_over:
                    self._look(queue)
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
