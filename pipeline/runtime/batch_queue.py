"""Where a node's items wait for an instance.

There is no batching thread: instances that have nothing to do wait here, and each thread that
changes something (an item comes, a batch is done, time passes) lets a batch leave if `batch_rule`
says so.
Of several waiting instances the smallest one that can hold the waiting items gets them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from threading import Lock

from pipeline.errors import ClosedError
from pipeline.runtime.batch_rule import BatchRule
from pipeline.runtime.counts import BatchCounts
from pipeline.runtime.fair_order import FairOrder
from pipeline.runtime.idle_instance import IdleInstance, best_fit
from pipeline.runtime.task import Task


class BatchQueue:
    """A queue that is fair between callers and hands out batches; thread-safe.

    Args:
        timeout_ms: longest wait of an item for others, `batching_timeout`.
        make_rule: makes the rule by which batches leave, of the items that wait and `timeout_ms`.
        lock: guards it; one of its own where none is given.
    """

    def __init__(
        self,
        timeout_ms: float,
        make_rule: Callable[[FairOrder, float], BatchRule] = BatchRule,
        lock: Lock | None = None,
    ) -> None:
        self._order = FairOrder()
        self._rule = make_rule(self._order, timeout_ms)
        self._idle: list[IdleInstance] = []
        self._lock = lock or Lock()
        self._refused: Callable[[Sequence[Task]], None] | None = None

    @property
    def counts(self) -> BatchCounts:
        """How many batches have left so far."""
        with self._lock:
            return self._rule.counts

    def __len__(self) -> int:
        """How many items wait."""
        return len(self._order)

    @property
    def idle_instances(self) -> int:
        """How many instances wait for a batch."""
        return len(self._idle)

    def put(self, task: Task, *, wakes: bool = True) -> Sequence[Task]:
        """Add an item; an idle instance may get it at once.

        Args:
            task: the item.
            wakes: as for a `Sink`.

        Returns:
            Expired items from the front of the queue, which are removed: without an instance that
            takes them, they would stay in memory.

        Raises:
            ClosedError: no instance will come any more.
        """
        task.queued_at_s = time.monotonic()
        task.began_s = task.began_s or task.queued_at_s
        overdue: Sequence[Task] = ()
        with self._lock:
            rule = self._rule
            if rule.is_closing:
                raise ClosedError("the pipeline is closed")
            if (refused := self._refused) is None:
                order = self._order
                if not self._idle and order.rows:
                    overdue = order.take_overdue(task.queued_at_s)
                order.put(task)
                rule.missing -= 1
                self._let_leave(task.queued_at_s, wakes=wakes)
                return overdue
        refused([task])
        return overdue

    def take(self, smallest: int, largest: int) -> list[Task] | None:
        """Block until a batch of at most `largest` rows may leave; None once closed and empty.

        An item of more rows than that leaves by itself.
        """
        instance: IdleInstance | None = None
        while True:
            with self._lock:
                # Only what is idle is looked after by others.
                if instance is None:
                    instance = IdleInstance(smallest, largest)
                    self._idle.append(instance)
                elif instance.batch:
                    return instance.batch
                now_s = 0.0
                instance.looks_at_s = math.inf
                if self._order.rows:
                    now_s = time.monotonic()
                    self._hand_out(now_s)
                    if instance.batch:
                        return instance.batch
                    instance.looks_at_s = self._leaves_at_s()
                elif self._rule.is_closing:
                    self._idle.remove(instance)
                    return None
            if instance.looks_at_s == math.inf:
                instance.gate.acquire()
            else:
                instance.gate.acquire(timeout=max(0.0, instance.looks_at_s - now_s))
            # The thread that gave it a batch does nothing more with it.
            if instance.batch:
                return instance.batch

    def done(self, batch: list[Task], batch_s: float) -> None:
        """An instance has finished a batch that took so long; its callers do not know yet."""
        with self._lock:
            self._rule.batch_done(len(batch), batch_s)

    def refuse(self, refused: Callable[[Sequence[Task]], None]) -> None:
        """Give what waits and what comes to `refused` at once, until `accept` is called."""
        with self._lock:
            self._refused = refused
            waiting = self._order.take_all()
        refused(waiting)

    def accept(self) -> None:
        """Let items wait for instances again."""
        with self._lock:
            self._refused = None

    def close(self) -> None:
        """Let the waiting items leave at once and end every `take` after them."""
        with self._lock:
            self._rule.is_closing = True
            self._hand_out(time.monotonic())
            for instance in self._idle:
                instance.wake()

    def _let_leave(self, now_s: float, *, wakes: bool) -> None:  # noqa: ARG002 (for a pool)
        """An item has come."""
        if self._idle:
            self._hand_out(now_s)
            if self._order.rows and self._idle:
                self._set_alarm()

    def _hand_out(self, now_s: float) -> None:
        """Give idle instances what may leave."""
        order, idle, rule = self._order, self._idle, self._rule
        while order.rows and idle:
            instance = idle[0] if len(idle) == 1 else best_fit(idle, order.rows)
            batch = rule.take(instance.smallest, instance.largest, now_s)
            if batch is None:
                return
            idle.remove(instance)
            instance.batch = batch
            instance.wake()

    def _leaves_at_s(self) -> float:
        """When what waits may leave, by the passing of time alone."""
        return self._rule.leaves_at_s(min(idle.smallest for idle in self._idle))

    def _set_alarm(self) -> None:
        """See to it that an idle instance looks when what waits may leave."""
        if min(idle.looks_at_s for idle in self._idle) > self._leaves_at_s():
            self._idle[0].wake()
