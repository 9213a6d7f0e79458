"""The rule by which a batch leaves, whichever way its items came to the node.

* `full`: as many rows wait as the instance takes;
* `idle`: fewer, but at least its `min`, and an instance has nothing else to do; in a `CorePool`
  also those of many that leave enough for other cores. Only where a batch has just been finished,
  and as many callers as it had items may come back at once, the instance waits for them: a tenth of
  the time that a batch takes, and `batching_timeout` at most;
* `timeout`: fewer than `min`, and the oldest has waited for `batching_timeout`.

Which items leave in it is the order's business: see `fair_order`.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from pipeline.runtime.counts import BatchCounts, LeaveReason

if TYPE_CHECKING:
    # It imports the backends, which a simulation does without.
    from pipeline.runtime.task import Task

# Of the time that a batch takes: how long an instance waits for callers that come back.
_RETURN_SHARE = 0.1
# Of the newest batch in the mean time that a batch takes.
_NEWEST_SHARE = 0.3
# Batches are counted by the reasons' words: an enumeration's member takes long to look up.
_FULL, _IDLE, _TIMEOUT = (reason.value for reason in LeaveReason)


class Order(Protocol):
    """The items that wait, in the order in which they are to leave, such as a `FairOrder`."""

    @property
    def rows(self) -> int:
        """Of all items together."""

    def oldest_s(self) -> float:
        """When the oldest item came, on the rule's clock."""

    def take(self, largest: int, most_charged: int) -> list[Any]:
        """Remove the items of a batch of at most `largest` rows.

        Args:
            largest: most rows of the batch.
            most_charged: rows that count against the caller of an item with more.
        """


class BatchRule:
    """Decides whether a batch leaves, and counts those that do. Not thread-safe.

    Args:
        order: the items that wait.
        timeout_ms: longest wait of an item for others, `batching_timeout`.
        clock_s: tells the time.

    Attributes:
        is_closing: whether no item comes any more, so that none is waited for.
        missing: how many items of the last finished batch have not come back; the source subtracts
            one for each item that it adds to the order.
    """

    def __init__(
        self, order: Order, timeout_ms: float, clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        self.is_closing = False
        self.missing = 0
        self._order = order
        self._timeout_s = timeout_ms / 1000
        self._clock_s = clock_s
        self._missed_until_s = 0.0
        self._batch_s = 0.0
        self._left: dict[str, int] = dict.fromkeys((_FULL, _IDLE, _TIMEOUT), 0)
        self._sizes: Counter[int] = Counter()

    @property
    def counts(self) -> BatchCounts:
        """How many batches have left so far."""
        by_reason = Counter({LeaveReason(word): n for word, n in self._left.items() if n})
        return BatchCounts(by_reason, self._sizes.copy())

    def take(
        self, smallest: int, largest: int, now_s: float, share: int | None = None
    ) -> list[Any] | None:
        """Remove a batch of at most `largest` rows for an idle instance; None if none may leave.

        An item of more rows leaves by itself. At least one item waits.

        Args:
            smallest: the fewest rows that the instance wants.
            largest: the most rows that it takes.
            now_s: the time.
            share: the most rows that leave others enough to do; None for any.
        """
        order = self._order
        rows = order.rows
        taken = largest if share is None else min(largest, share)
        if rows >= largest == taken:
            reason = _FULL
        elif rows >= smallest:
            # The oldest item is looked up last, and not at all where no caller is expected back.
            if self.missing > 0 and now_s < self._missed_until_s and not self.is_late(now_s):
                return None
            reason = _IDLE
        elif self.is_late(now_s):
            reason = _TIMEOUT
        else:
            return None
        batch = order.take(taken, largest)
        self._left[reason] += 1
        self._sizes[rows - order.rows] += 1
        return batch

    def leaves_alone(self, task: Task, largest: int) -> None:
        """Count an item that never was in the order; it is a batch by itself."""
        self.missing -= 1
        self._left[_FULL if task.rows >= largest else _IDLE] += 1
        self._sizes[task.rows] += 1

    def leaves_at_s(self, smallest: int) -> float:
        """When a batch may leave that may not yet, by the passing of time alone.

        Args:
            smallest: the fewest rows that any idle instance wants.
        """
        order = self._order
        if not order.rows:
            return math.inf
        late_at_s = order.oldest_s() + self._timeout_s
        if self.missing > 0 and order.rows >= smallest:
            return min(late_at_s, self._missed_until_s)
        return late_at_s

    def batch_done(self, items: int, batch_s: float) -> None:
        """An instance has finished a batch, and its callers, who may come back, are about to know.

        Args:
            items: how many the batch had.
            batch_s: how long it took.
        """
        if not self._batch_s:
            self._batch_s = batch_s
        self._batch_s += _NEWEST_SHARE * (batch_s - self._batch_s)
        self.missing = items
        wait_s = min(self._timeout_s, _RETURN_SHARE * self._batch_s)
        self._missed_until_s = self._clock_s() + wait_s

    def is_late(self, now_s: float) -> bool:
        """Whether the oldest item, and there is one, has waited for others long enough."""
        return self.is_closing or now_s >= self._order.oldest_s() + self._timeout_s
