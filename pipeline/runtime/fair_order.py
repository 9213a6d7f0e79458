"""The order in which waiting items leave: a round gives each caller a turn of one row.

It is deficit round robin over callers. A caller that has had no turn in the current round comes
before callers with more waiting items, so that a single image does not first wait for a round of
all others. If no caller has more than one item here, the order is first in, first out, as it always
is among the items of one caller.
"""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush, heapreplace

from pipeline.runtime.task import Task

_ANY_ROWS = 2**62


class FairOrder:
    """Items that wait, in the order in which they are to leave. Not thread-safe.

    Attributes:
        rows: of all items together.
    """

    __slots__ = ("_backlogs", "_fresh", "_number", "_ring", "_round", "_turns", "rows")

    def __init__(self) -> None:
        self.rows = 0
        # First items of callers that have had no turn in this round.
        self._fresh: deque[Task] = deque()
        # The further items of each caller of whom any waits; None where there are none, and no
        # entry where there can be none.
        self._backlogs: dict[int, deque[Task] | None] = {}
        # A heap of the callers who have had a turn: the round of the next one, a number that
        # keeps equals in order, and the caller.
        self._ring: list[tuple[int, int, int]] = []
        self._number = 0
        self._round = 0
        # Of callers of whom nothing waits any more, but others' items do: the round of the next.
        self._turns: dict[int, int] = {}

    def __len__(self) -> int:
        """How many items wait."""
        return len(self._fresh) + sum(len(backlog or ()) for backlog in self._backlogs.values())

    def __bool__(self) -> bool:
        """Whether any waits."""
        return bool(self._fresh or self._ring)

    def put(self, task: Task) -> None:
        """Add an item behind the others of its caller."""
        call = task.call
        self.rows += task.rows
        if call.is_alone and not self._ring:
            self._fresh.append(task)
            return
        caller, backlogs = call.caller, self._backlogs
        if caller not in backlogs:
            if (turn := self._turns.get(caller, 0)) > self._round:
                backlogs[caller] = deque((task,))
                self._enter_ring(turn, caller)
            else:
                if not call.is_alone:
                    backlogs[caller] = None
                self._fresh.append(task)
        elif (backlog := backlogs[caller]) is None:
            backlogs[caller] = deque((task,))
        else:
            backlog.append(task)

    def take(self, largest: int, most_charged: int | None = None) -> list[Task]:
        """Remove the items of the next batch: `largest` rows at most, but at least one item.

        An item of more rows costs its caller the turns of so many, or of `most_charged`.
        """
        fresh = self._fresh
        if len(fresh) == 1 and not self._ring and fresh[0].call.is_alone:
            self.rows = 0
            return [fresh.popleft()]
        batch: list[Task] = []
        left = largest
        if not self._ring:
            # The common case, which looks nothing up: callers of one item each.
            while fresh and (task := fresh[0]).call.is_alone and (task.rows <= left or not batch):
                left -= task.rows
                batch.append(fresh.popleft())
            self.rows -= largest - left
        while self.rows and (left > 0 or not batch):
            waiting = fresh or self._first_backlog()
            assert waiting  # noqa: S101 (there are rows)
            rows = waiting[0].rows
            if rows > left and batch:
                break
            left -= rows
            batch.append(self._remove_first(min(rows, most_charged or largest)))
        return batch

    def take_all(self) -> list[Task]:
        """Remove everything."""
        return self.take(_ANY_ROWS)

    def take_overdue(self, now_s: float) -> list[Task]:
        """Remove what is to leave next, as far as its deadline has passed."""
        overdue = []
        while waiting := self._fresh or self._first_backlog():
            deadline_s = waiting[0].call.deadline_s
            if deadline_s is None or deadline_s > now_s:
                break
            overdue.append(self._remove_first(0))
        return overdue

    def first(self) -> Task:
        """The item that is to leave next; there is one."""
        waiting = self._fresh or self._first_backlog()
        assert waiting  # noqa: S101 (as the docstring says)
        return waiting[0]

    def is_held_back(self) -> bool:
        """Whether its caller has had a turn already in this round."""
        return not self._fresh

    def oldest_s(self) -> float:
        """Since when the item waits that has waited longest; there is one."""
        oldest_s = self._fresh[0].queued_at_s if self._fresh else float("inf")
        for _, _, caller in self._ring:
            backlog = self._backlogs[caller]
            if backlog:
                oldest_s = min(oldest_s, backlog[0].queued_at_s)
        return oldest_s

    def _first_backlog(self) -> deque[Task] | None:
        """What waits of the caller in the ring whose turn is next."""
        return self._backlogs[self._ring[0][2]] if self._ring else None

    def _remove_first(self, charged: int) -> Task:
        """Remove the next item; its caller's next turn is as many rounds later."""
        if not self._fresh:
            return self._remove_from_ring(charged)
        task = self._fresh.popleft()
        self.rows -= task.rows
        caller = task.call.caller
        # A lone item has no entry. An entry of its caller is of a later call, made after this one
        # was given up, whose first item has not left yet.
        if not task.call.is_alone:
            if self._backlogs.get(caller) is not None:
                self._enter_ring(self._round + charged, caller)
                return task
            self._backlogs.pop(caller, None)
        if self._ring:
            self._turns[caller] = self._round + charged
        return task

    def _remove_from_ring(self, charged: int) -> Task:
        turn, _, caller = self._ring[0]
        if turn > self._round:
            self._round = turn
            self._turns = {who: next_ for who, next_ in self._turns.items() if next_ > turn}
        backlog = self._backlogs[caller]
        assert backlog  # noqa: S101 (each caller in the ring has an item)
        task = backlog.popleft()
        self.rows -= task.rows
        if backlog:
            self._number += 1
            heapreplace(self._ring, (turn + charged, self._number, caller))
            return task
        heappop(self._ring)
        del self._backlogs[caller]
        if self._ring:
            self._turns[caller] = turn + charged
        else:
            self._turns.clear()
        return task

    def _enter_ring(self, turn: int, caller: int) -> None:
        self._number += 1
        heappush(self._ring, (turn, self._number, caller))
