"""One call of a pipeline, and its items on their way through the nodes."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING

from pipeline.keys import TASK_REQUEST_SIZE_KEY

if TYPE_CHECKING:
    from pipeline.backend import Item


class Call(ABC):
    """Whom an item belongs to.

    Attributes:
        deadline_s: when nobody waits for it any more, on the monotonic clock; None for never.
        after_batch: called once after a batch that had items of this call, or None.
    """

    deadline_s: float | None
    after_batch: Callable[[], None] | None = None

    @abstractmethod
    def item_done(self, task: Task) -> None:
        """Nothing changes the item any more."""

    def expired(self) -> bool:
        """Whether nobody waits for the items any more."""
        return self.deadline_s is not None and time.monotonic() >= self.deadline_s


class WaitingCall(Call):
    """What the items of one call share: the caller waits for the last of them.

    Args:
        count: how many items there are.
        deadline_s: as the attribute.
        has_gone: whether the caller waits for somebody else who does not wait any more. It is
            asked whenever a node is about to work on an item; None where that cannot be known.
    """

    def __init__(
        self, count: int, deadline_s: float | None, has_gone: Callable[[], bool] | None = None
    ) -> None:
        self._is_one = count == 1
        self._remaining = count
        self._lock = threading.Lock()
        # A plain lock, held until all items are done: waiting for it takes one call.
        self._gate = threading.Lock()
        self._gate.acquire()
        self.deadline_s = deadline_s
        self._has_gone = has_gone

    def expired(self) -> bool:
        """Whether the deadline has passed, or the one behind the caller has gone."""
        return super().expired() or (self._has_gone is not None and self._has_gone())

    def item_done(self, task: Task) -> None:  # noqa: ARG002 (whichever it is)
        """Count one item; the last one wakes the caller."""
        if self._is_one:
            self._gate.release()
            return
        with self._lock:
            self._remaining -= 1
            last = self._remaining == 0
        if last:
            self._gate.release()

    def wait(self) -> None:
        """Block until all items are done or the deadline has passed."""
        if self.deadline_s is None:
            self._gate.acquire()
        else:
            self._gate.acquire(timeout=max(0.0, self.deadline_s - time.monotonic()))


class Task:
    """One item of a call.

    Attributes:
        item: a copy of the caller's item, so that work that ends after the call's deadline never
            touches what the caller holds.
        call: the call that it belongs to.
        queued_at_s: when it entered the current node's queue, on the monotonic clock.
        stage_times_ms: "NODE.queue" and "NODE.forward" of every node passed.
        rows: for how many rows of a batch it counts: its `request_size`, or 1.
        done: True once nothing changes the item any more.
        error: why it has no result, or None.
    """

    __slots__ = ("call", "done", "error", "item", "queued_at_s", "rows", "stage_times_ms")

    def __init__(self, item: Item, call: Call) -> None:
        self.item = item
        self.call = call
        self.rows: int = item.get(TASK_REQUEST_SIZE_KEY, 1)
        self.queued_at_s = 0.0
        self.stage_times_ms: dict[str, float] = {}
        self.done = False
        self.error: Exception | None = None

    def finish(self, error: Exception | None = None) -> None:
        """The item's way ends here."""
        self.error = error
        self.done = True
        self.call.item_done(self)
