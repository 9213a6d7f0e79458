"""An instance that waits for a batch, and which of several gets the next one."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import Protocol, TypeVar

from pipeline.runtime.task import Task


class IdleInstance:
    """One instance's wait for a batch; but for `gate`, the queue's lock guards all.

    Attributes:
        smallest: fewest rows that it wants.
        largest: most rows that it takes.
        batch: what it has been given; empty while it waits.
        looks_at_s: when it looks again by itself, on the monotonic clock.
        gate: held until there is a batch, so that waiting for it takes one call.
    """

    __slots__ = ("batch", "gate", "largest", "looks_at_s", "smallest")

    def __init__(self, smallest: int, largest: int) -> None:
        self.smallest = smallest
        self.largest = largest
        self.batch: list[Task] = []
        self.looks_at_s = math.inf
        self.gate = threading.Lock()
        self.gate.acquire()

    def wake(self) -> None:
        """Let its thread look at what there is."""
        if self.gate.locked():
            self.gate.release()


class Sized(Protocol):
    """An instance for batches of some sizes.

    Attributes:
        smallest: fewest rows that it wants.
        largest: most rows that it takes.
    """

    smallest: int
    largest: int


SizedT = TypeVar("SizedT", bound=Sized)


def best_fit(idle: Sequence[SizedT], rows: int) -> SizedT:
    """The smallest instance that holds so many rows, or else the largest."""
    holding = [one for one in idle if one.smallest <= rows <= one.largest]
    if holding:
        return min(holding, key=lambda one: one.largest)
    return max(idle, key=lambda one: (one.smallest <= rows, one.largest))
