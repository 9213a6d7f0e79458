"""Where a node's items wait, and the rule by which a batch leaves.

There is no batching thread. An instance that has nothing to do asks for a batch itself, so that
finishing one batch is what fetches the next, and everybody else sleeps on one condition variable:

* `full`: as many items wait as the instance takes;
* `idle`: fewer, but at least its `min`: an instance asks and nothing else is queued, so waiting
  would leave it idle for the sake of items that may never come;
* `timeout`: fewer than `min`, and the oldest has waited for `batching_timeout`.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.task import Task


class LeaveReason(Enum):
    """Why a batch left."""

    FULL = "full"
    IDLE = "idle"
    TIMEOUT = "timeout"


@dataclass
class BatchCounts:
    """How many batches left, by reason and by size."""

    by_reason: Counter[LeaveReason] = field(default_factory=Counter)
    by_size: Counter[int] = field(default_factory=Counter)


class BatchQueue:
    """A first-in, first-out queue that hands out batches; thread-safe."""

    def __init__(self, timeout_ms: float) -> None:
        self._timeout_s = timeout_ms / 1000
        self._tasks: deque[Task] = deque()
        self._changed = threading.Condition(threading.Lock())
        self._closed = False
        self.counts = BatchCounts()

    def put(self, task: Task) -> None:
        """Add an item and wake one idle instance, if there is one."""
        task.queued_at_s = time.monotonic()
        with self._changed:
            self._tasks.append(task)
            self._changed.notify()

    def take(self, smallest: int, largest: int) -> list[Task] | None:
        """Block until a batch of at most `largest` items may leave; None once closed and empty."""
        with self._changed:
            while True:
                wait_s = None
                if self._tasks:
                    reason = self._leave_reason(smallest, largest)
                    if reason is not None:
                        return self._remove(largest, reason)
                    wait_s = self._tasks[0].queued_at_s + self._timeout_s - time.monotonic()
                elif self._closed:
                    return None
                self._changed.wait(wait_s)

    def close(self) -> None:
        """Let the waiting items leave at once and end every `take` after them."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _leave_reason(self, smallest: int, largest: int) -> LeaveReason | None:
        waiting = len(self._tasks)
        if waiting >= largest:
            return LeaveReason.FULL
        if waiting >= smallest:
            return LeaveReason.IDLE
        age_s = time.monotonic() - self._tasks[0].queued_at_s
        if self._closed or age_s >= self._timeout_s:
            return LeaveReason.TIMEOUT
        return None

    def _remove(self, largest: int, reason: LeaveReason) -> list[Task]:
        size = min(largest, len(self._tasks))
        batch = [self._tasks.popleft() for _ in range(size)]
        self.counts.by_reason[reason] += 1
        self.counts.by_size[size] += 1
        if self._tasks:
            # `put` wakes one instance an item, but an instance may have been woken for an item
            # that left in this batch: pass the call on.
            self._changed.notify()
        return batch
