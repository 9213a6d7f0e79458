"""The queue of a node whose batches are run by the threads of a pool, and its instances there."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Lock
from typing import NamedTuple, Protocol

from pipeline.runtime.batch_queue import BatchQueue
from pipeline.runtime.batch_rule import BatchRule
from pipeline.runtime.batch_runner import BatchRunner
from pipeline.runtime.batch_source import Sink
from pipeline.runtime.fair_order import FairOrder
from pipeline.runtime.idle_instance import best_fit
from pipeline.runtime.task import Task


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


class PooledBatch(NamedTuple):
    """A batch, and the instance that runs it."""

    instance: PooledInstance
    tasks: list[Task]


class Workers(Protocol):
    """The threads that run the batches of all queues.

    Attributes:
        lock: that of all queues.
    """

    lock: Lock

    def add_worker(self, label: str) -> None:
        """Have one more, unless there is one for the instance of that name."""

    def wake(self) -> None:
        """Let those that have nothing to do run what waits; the lock is held."""

    def share(self) -> int:
        """The most rows of a batch, so that each has work for two; the lock is held."""


class PooledQueue(BatchQueue):
    """The queue of a node on the CPU.

    Instances whose backends belong to their thread take from it as from any other queue.

    Args:
        workers: those of the pipeline's pool.
        timeout_ms: as for a `BatchQueue`.
        make_rule: as for a `BatchQueue`.

    Attributes:
        is_pooled: whether the pool runs its batches, or some of them.
        sink: where results go; None if their way ends here.
        next: the queue of the node where they go, if that is in the same pool.
    """

    def __init__(
        self,
        workers: Workers,
        timeout_ms: float,
        make_rule: Callable[[FairOrder, float], BatchRule] = BatchRule,
    ) -> None:
        super().__init__(timeout_ms, make_rule, workers.lock)
        self._workers = workers
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

    def add(self, own: PooledInstance) -> None:
        """Let the pool use an instance; its thread calls `wait` then."""
        self.is_pooled = True
        self._workers.add_worker(own.label)
        with self._lock:
            self._ready.append(own)
            self._largest.add(own.largest)
            self._workers.wake()

    def wait(self, own: PooledInstance) -> Trouble | None:
        """Block until an instance's own thread is needed; None once all is closed."""
        while True:
            with self._lock:
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
        with self._lock:
            self._look_if_over()

    # The lock is held from here on.

    @property
    def rows(self) -> int:
        """How many wait."""
        return self._order.rows

    @property
    def is_over(self) -> bool:
        """Whether nothing waits, and nothing will."""
        return self._rule.is_closing and not self._order.rows

    def lend(self, task: Task) -> PooledInstance | None:
        """An instance for an item that need not wait, or None where it must."""
        if not self._ready or self._order.rows or self._refused is not None:
            return None
        instance = self._fitting(task.rows)
        self._ready.remove(instance)
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
            release(instance.gate)
        self._look_if_over()

    def can_leave(self) -> bool:
        """Whether a batch could be run."""
        return bool(self._order.rows and self._ready)

    def is_full(self) -> bool:
        """Whether the batch that could be run gets no more items."""
        rows = self._order.rows
        return rows >= self._share() or rows >= self._fitting(rows).largest

    def is_late(self) -> bool:
        """Whether it has waited for `batching_timeout`."""
        return self._rule.is_late(time.monotonic())

    def turn(self) -> tuple[bool, float]:
        """Of several queues that with the least is next."""
        return self._order.is_held_back(), self._order.first().began_s

    def leave(self) -> PooledBatch:
        """The batch."""
        share = self._share()
        instance = self._fitting(min(self._order.rows, share))
        # No caller is waited for, so that the time does not matter.
        tasks = self._rule.take(instance.smallest, instance.largest, 0.0, share)
        assert tasks is not None  # noqa: S101 (some wait, and pooled instances want no fewer than 1)
        self._ready.remove(instance)
        return PooledBatch(instance, tasks)

    def _share(self) -> int:
        """How many of the waiting rows a batch may take."""
        return self._workers.share() if max(self._largest) > 1 else 1

    def _fitting(self, rows: int) -> PooledInstance:
        # The last one has the warmest memory.
        return self._ready[-1] if len(self._largest) == 1 else best_fit(self._ready, rows)

    def _look_if_over(self) -> None:
        """Let the threads of instances that nothing will use any more end."""
        if self.is_over:
            for instance in self._ready:
                release(instance.gate)

    def _let_leave(self, now_s: float, *, wakes: bool) -> None:
        super()._let_leave(now_s, wakes=wakes)
        if wakes:
            self._workers.wake()


def release(gate: Lock) -> None:
    """Let the one who waits at a gate go on, or come through it next time."""
    if gate.locked():
        gate.release()
