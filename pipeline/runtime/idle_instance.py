"""An instance that waits for a batch, and which of several gets the next one."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence

from pipeline.runtime.batch_source import InlineRunner
from pipeline.runtime.task import Task


class IdleInstance:
    """One instance's wait for a batch; but for `gate`, the queue's lock guards all.

    Attributes:
        smallest: fewest rows that it wants.
        largest: most rows that it takes.
        inline_runner: runs an item in a caller's thread; None where only its own thread may.
        is_lent: whether a caller is running an item with it.
        batch: what it has been given; empty while it waits.
        looks_at_s: when it looks again by itself, on the monotonic clock.
        gate: held until there is a batch, so that waiting for it takes one call.
    """

    __slots__ = ("batch", "gate", "inline_runner", "is_lent", "largest", "looks_at_s", "smallest")

    def __init__(self, smallest: int, largest: int, inline_runner: InlineRunner | None) -> None:
        self.smallest = smallest
        self.largest = largest
        self.inline_runner = inline_runner
        self.is_lent = False
        self.batch: list[Task] = []
        self.looks_at_s = math.inf
        self.gate = threading.Lock()
        self.gate.acquire()

    def wake(self) -> None:
        """Let its thread look at what there is."""
        if self.gate.locked():
            self.gate.release()


def best_fit(idle: Sequence[IdleInstance], rows: int) -> IdleInstance:
    """The smallest instance that holds so many rows, or else the largest."""
    holding = [one for one in idle if one.smallest <= rows <= one.largest]
    if holding:
        return min(holding, key=lambda one: one.largest)
    return max(idle, key=lambda one: (one.smallest <= rows, one.largest))
