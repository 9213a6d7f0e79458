"""What the parts of a node expect of each other: where batches come from, and where results go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from pipeline.runtime.counts import BatchCounts
from pipeline.runtime.task import Task


class Sink(Protocol):
    """Where results go."""

    def submit(self, task: Task, *, caller_waits: bool = False, wakes: bool = True) -> None:
        """Take one item. What goes wrong with it is its outcome, and is not raised.

        Args:
            task: the item.
            caller_waits: whether the calling thread would only wait for it, so that it may as
                well do the work itself.
            wakes: whether a thread that has nothing to do is to begin with it. If not, the calling
                one is about to look for work.
        """


class BatchSource(Protocol):
    """Where a node's instances get their batches."""

    @property
    def counts(self) -> BatchCounts:
        """How many batches have left so far."""

    def take(self, smallest: int, largest: int) -> list[Task] | None:
        """Block until a batch may leave; None once closed and empty.

        Args:
            smallest: fewest rows of a batch.
            largest: most rows of a batch.
        """

    def done(self, batch: list[Task], batch_s: float) -> None:
        """An instance has finished a batch that took so long; its callers do not know yet."""

    def refuse(self, refused: Callable[[Sequence[Task]], None]) -> None:
        """Give what waits and what comes to `refused` at once, until `accept` is called."""

    def accept(self) -> None:
        """Let items wait for instances again."""

    def close(self) -> None:
        """Let the waiting items leave at once, and end every `take` after them."""
