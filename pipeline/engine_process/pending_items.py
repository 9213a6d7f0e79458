"""Items that wait until there is an engine process again."""

from __future__ import annotations

import heapq
import math
from itertools import count
from typing import NamedTuple

from pipeline.runtime.task import Task


class PendingItem(NamedTuple):
    """An item, and in how many engine processes it was begun that have ended since."""

    task: Task
    tries: int


class PendingItems:
    """The item with the earliest deadline comes first; not thread-safe.

    Those that an engine process had begun when it ended come behind all others.
    """

    def __init__(self) -> None:
        self._order = count()
        self._new: list[tuple[float, int, PendingItem]] = []
        self._begun: list[tuple[float, int, PendingItem]] = []

    def put(self, item: PendingItem) -> None:
        """Keep an item."""
        deadline_s = item.task.call.deadline_s
        heap = self._begun if item.tries else self._new
        key = math.inf if deadline_s is None else deadline_s
        heapq.heappush(heap, (key, next(self._order), item))

    def take(self) -> PendingItem | None:
        """The next item; None if there is none."""
        for heap in (self._new, self._begun):
            if heap:
                return heapq.heappop(heap)[-1]
        return None

    def take_overdue(self, now_s: float) -> list[Task]:
        """The items whose deadline has passed: where nothing takes them, they keep their memory."""
        overdue = []
        for heap in (self._new, self._begun):
            while heap and heap[0][0] <= now_s:
                overdue.append(heapq.heappop(heap)[-1].task)
        return overdue
