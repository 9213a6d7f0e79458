"""Where a node's items wait, and the rule by which a batch leaves.

There is no batching thread: instances that have nothing to do wait here, and whoever changes
something (an item comes, a batch is done, time passes) lets a batch leave if one may:

* `full`: as many rows wait as the instance takes;
* `idle`: fewer, but at least its `min`, and an instance has nothing else to do. Only where a batch
  has just been finished, and as many callers as it had items may come back at once, the instance
  waits for them: a tenth of the time that a batch takes, and `batching_timeout` at most;
* `timeout`: fewer than `min`, and the oldest has waited for `batching_timeout`.

Of several instances that wait, the smallest one that holds what is there gets it. Where one waits
that others may stand in for, a caller that would only wait for its item runs it in that place.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pipeline.instance import StandIn
    from pipeline.task import Task

# Of the time that a batch takes: how long an instance waits for callers that come back.
_RETURN_SHARE = 0.1
# Of the newest batch in the mean time that a batch takes.
_NEWEST_SHARE = 0.3


_FULL, _IDLE, _TIMEOUT = "full", "idle", "timeout"


class LeaveReason(Enum):
    """Why a batch left."""

    FULL = _FULL
    IDLE = _IDLE
    TIMEOUT = _TIMEOUT


@dataclass
class BatchCounts:
    """How many batches left, by reason and by size in rows."""

    by_reason: Counter[LeaveReason] = field(default_factory=Counter)
    by_size: Counter[int] = field(default_factory=Counter)


class _Instance:
    """An instance that waits for a batch.

    Attributes:
        stand_in: runs an item in its place; None where only its own thread may.
    """

    __slots__ = ("batch", "gate", "is_lent", "largest", "looks_at_s", "smallest", "stand_in")

    def __init__(self, smallest: int, largest: int, stand_in: StandIn | None) -> None:
        self.smallest = smallest
        self.largest = largest
        self.stand_in = stand_in
        self.is_lent = False
        self.batch: list[Task] = []
        # When it looks again by itself.
        self.looks_at_s = math.inf
        # Held until there is a batch: waiting for it takes one call.
        self.gate = threading.Lock()
        self.gate.acquire()


class BatchQueue:
    """A first-in, first-out queue that hands out batches; thread-safe."""

    def __init__(self, timeout_ms: float) -> None:
        self._timeout_s = timeout_ms / 1000
        self._tasks: deque[Task] = deque()
        self._rows = 0
        self._idle: list[_Instance] = []
        self._lock = threading.Lock()
        self._closed = False
        self._refused: Callable[[Sequence[Task]], None] | None = None
        self._batch_s = 0.0
        # Items of the last finished batch whose callers have not come back, and for how long an
        # instance waits for them.
        self._missing = 0
        self._missed_until_s = 0.0
        # Counted by the reasons' words: an enumeration's member takes long to look up.
        self._left: dict[str, int] = dict.fromkeys((_FULL, _IDLE, _TIMEOUT), 0)
        self._sizes: Counter[int] = Counter()

    @property
    def counts(self) -> BatchCounts:
        """How many batches have left so far."""
        with self._lock:
            by_reason = Counter({LeaveReason(word): n for word, n in self._left.items() if n})
            return BatchCounts(by_reason, self._sizes.copy())

    def __len__(self) -> int:
        """How many items wait."""
        return len(self._tasks)

    @property
    def idle_instances(self) -> int:
        """How many instances wait for a batch."""
        return len(self._idle)

    def put(self, task: Task) -> Sequence[Task]:
        """Add an item; an idle instance may get it at once.

        Returns:
            What has waited in front until its deadline passed, and is not in the queue any more:
            where no instance comes to take it, others would keep it in memory.
        """
        task.queued_at_s = time.monotonic()
        overdue: Sequence[Task] = ()
        with self._lock:
            if (refused := self._refused) is None:
                if self._tasks and not self._idle:
                    overdue = self._remove_overdue(task.queued_at_s)
                self._tasks.append(task)
                self._rows += task.rows
                self._missing -= 1
                if self._idle:
                    self._hand_out(task.queued_at_s)
                    if self._tasks and self._idle:
                        self._have_somebody_look()
                return overdue
        refused([task])
        return overdue

    def run_in_caller(self, task: Task) -> tuple[bool, Task | None]:
        """Run an item in the calling thread, in place of an idle instance.

        Items that wait come first: there is no such instance then.

        Returns:
            Whether it was run, and the item if it goes on to another node.
        """
        borrowed = self._borrow(task)
        if borrowed is None:
            return False, None
        instance, stand_in = borrowed
        try:
            return True, stand_in(task)
        finally:
            self._give_back(instance)

    def take(
        self, smallest: int, largest: int, stand_in: StandIn | None = None
    ) -> list[Task] | None:
        """Block until a batch of at most `largest` rows may leave; None once closed and empty.

        An item of more rows than that leaves by itself.
        """
        instance: _Instance | None = None
        while True:
            with self._lock:
                # Nobody looks on behalf of an instance that is not idle any more.
                if instance is None:
                    instance = _Instance(smallest, largest, stand_in)
                    self._idle.append(instance)
                elif instance.batch:
                    return instance.batch
                now_s = 0.0
                if instance.is_lent:
                    # Whoever stands in for it wakes it if there is something to do.
                    instance.looks_at_s = math.inf
                elif self._tasks:
                    now_s = time.monotonic()
                    self._hand_out(now_s)
                    if instance.batch:
                        return instance.batch
                    instance.looks_at_s = self._leaves_at_s()
                elif self._closed:
                    self._idle.remove(instance)
                    return None
                else:
                    instance.looks_at_s = math.inf
            if instance.looks_at_s == math.inf:
                instance.gate.acquire()
            else:
                instance.gate.acquire(timeout=max(0.0, instance.looks_at_s - now_s))
            # Whoever gave it a batch has nothing more to do with it.
            if instance.batch:
                return instance.batch

    def done(self, batch: list[Task], batch_s: float) -> None:
        """An instance has finished a batch, and its callers are about to be told.

        Args:
            batch: what `take` gave.
            batch_s: how long it took.
        """
        with self._lock:
            if not self._batch_s:
                self._batch_s = batch_s
            self._batch_s += _NEWEST_SHARE * (batch_s - self._batch_s)
            self._missing = len(batch)
            wait_s = min(self._timeout_s, _RETURN_SHARE * self._batch_s)
            self._missed_until_s = time.monotonic() + wait_s

    def refuse(self, refused: Callable[[Sequence[Task]], None]) -> None:
        """Give what waits and what comes to `refused` at once, until `accept` is called."""
        with self._lock:
            self._refused = refused
            waiting = list(self._tasks)
            self._tasks.clear()
            self._rows = 0
        refused(waiting)

    def accept(self) -> None:
        """Let items wait for instances again."""
        with self._lock:
            self._refused = None

    def close(self) -> None:
        """Let the waiting items leave at once and end every `take` after them."""
        with self._lock:
            self._closed = True
            self._hand_out(time.monotonic())
            for instance in self._idle:
                if instance.gate.locked():
                    instance.gate.release()

    def _borrow(self, task: Task) -> tuple[_Instance, StandIn] | None:
        now_s = time.monotonic()
        with self._lock:
            if self._tasks or self._refused is not None or not self._idle:
                return None
            instance = self._idle[-1]
            if instance.stand_in is None:
                return None
            self._idle.pop()
            instance.is_lent = True
            self._missing -= 1
            self._left[_FULL] += 1
            self._sizes[task.rows] += 1
        task.queued_at_s = now_s
        return instance, instance.stand_in

    def _give_back(self, instance: _Instance) -> None:
        """Let it wait again, or have what has come meanwhile."""
        with self._lock:
            instance.is_lent = False
            self._idle.append(instance)
            if self._tasks:
                self._hand_out(time.monotonic())
            if (self._closed or self._tasks) and instance.gate.locked():
                # It looks itself: at the end, or for how long to wait.
                instance.gate.release()

    def _hand_out(self, now_s: float) -> None:
        """Give idle instances what may leave."""
        while self._tasks and self._idle:
            instance = self._fitting()
            reason = self._leave_reason(instance, now_s)
            if reason is None:
                return
            self._idle.remove(instance)
            instance.batch = self._remove(instance.largest, reason)
            if instance.gate.locked():
                instance.gate.release()

    def _fitting(self) -> _Instance:
        """The smallest idle instance that holds all that waits, or else the largest."""
        if len(self._idle) == 1:
            return self._idle[0]
        held = [idle for idle in self._idle if idle.smallest <= self._rows <= idle.largest]
        if held:
            return min(held, key=lambda idle: idle.largest)
        return max(self._idle, key=lambda idle: (idle.smallest <= self._rows, idle.largest))

    def _leave_reason(self, instance: _Instance, now_s: float) -> str | None:
        if self._rows >= instance.largest:
            return _FULL
        is_late = self._closed or now_s >= self._tasks[0].queued_at_s + self._timeout_s
        if self._rows >= instance.smallest:
            is_alone = self._missing <= 0 or now_s >= self._missed_until_s
            return _IDLE if is_late or is_alone else None
        return _TIMEOUT if is_late else None

    def _leaves_at_s(self) -> float:
        """When a batch may leave that may not yet, by the passing of time alone."""
        if not self._tasks:
            return math.inf
        late_at_s = self._tasks[0].queued_at_s + self._timeout_s
        if self._missing > 0 and self._rows >= min(idle.smallest for idle in self._idle):
            return min(late_at_s, self._missed_until_s)
        return late_at_s

    def _have_somebody_look(self) -> None:
        """See to it that an idle instance looks when what waits may leave."""
        if min(idle.looks_at_s for idle in self._idle) > self._leaves_at_s():
            first = self._idle[0]
            if first.gate.locked():
                first.gate.release()

    def _remove_overdue(self, now_s: float) -> list[Task]:
        overdue = []
        while self._tasks:
            deadline_s = self._tasks[0].call.deadline_s
            if deadline_s is None or deadline_s > now_s:
                break
            overdue.append(self._tasks.popleft())
            self._rows -= overdue[-1].rows
        return overdue

    def _remove(self, largest: int, reason: str) -> list[Task]:
        batch = [self._tasks.popleft()]
        rows = batch[0].rows
        while self._tasks and rows + self._tasks[0].rows <= largest:
            rows += self._tasks[0].rows
            batch.append(self._tasks.popleft())
        self._rows -= rows
        self._left[reason] += 1
        self._sizes[rows] += 1
        return batch
