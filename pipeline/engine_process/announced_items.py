"""Items that other processes announce on a pipe, as the batches of a node.

The kernel's pipe is the queue. An idle instance waits in read(2), one write wakes one of them, and
it takes what is there: no thread of this process stands between the workers and the instances, and
nobody's interpreter lock is taken to hand an item on.
"""

from __future__ import annotations

import os
import select
import threading
import time
from array import array
from collections.abc import Callable, Sequence

from pipeline.batch_queue import BatchCounts, LeaveReason
from pipeline.task import Task

# An announcement: the worker's number and the slot's. A write of one is never torn apart.
_TYPE_CODE = "Q"
_BYTES = array(_TYPE_CODE).itemsize
_SLOT_BITS = 32
# Announcements that are read at once while no instance works.
_MOST_REFUSED = 64


def announcement(worker: int, slot: int) -> bytes:
    """What a worker writes into the pipe once an item is in a slot."""
    return array(_TYPE_CODE, [worker << _SLOT_BITS | slot]).tobytes()


class AnnouncedItems:
    """Hands out batches by the rule of `batch_queue`; thread-safe.

    Args:
        timeout_ms: longest wait for a batch's fewest items.
        task_of: the item in a worker's slot, or None if that worker has gone.

    Attributes:
        writer: descriptor into which the workers write.
    """

    def __init__(self, timeout_ms: float, task_of: Callable[[int, int], Task | None]) -> None:
        self._timeout_s = timeout_ms / 1000
        self._task_of = task_of
        self._reader, self.writer = os.pipe()
        self._open = True
        # Reads while no instance does; the event ends it.
        self._refuser: threading.Thread | None = None
        self._accepted = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        # One instance at a time gathers a batch that may not leave yet.
        self._gathering = threading.Lock()
        self._counting = threading.Lock()
        self._counts = BatchCounts()

    def __enter__(self) -> AnnouncedItems:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
        self.accept()
        os.close(self._reader)
        os.close(self._accepted)

    @property
    def counts(self) -> BatchCounts:
        """How many batches have left so far."""
        with self._counting:
            return BatchCounts(self._counts.by_reason.copy(), self._counts.by_size.copy())

    def take(
        self,
        smallest: int,
        largest: int,
        stand_in: object = None,  # noqa: ARG002 (whoever announces items is in another process)
    ) -> list[Task] | None:
        """Block until a batch of at most `largest` items may leave; None once closed and empty.

        It is closed for the instances when no worker has the pipe open any more either.
        """
        batch: list[Task] | None = []
        while not batch:
            if smallest > 1:
                with self._gathering:
                    batch = self._gather(smallest, largest)
            else:
                batch = self._read(largest)
            if batch is None:
                return None
        reason = LeaveReason.IDLE
        if len(batch) >= largest:
            reason = LeaveReason.FULL
        elif len(batch) < smallest:
            reason = LeaveReason.TIMEOUT
        with self._counting:
            self._counts.by_reason[reason] += 1
            self._counts.by_size[len(batch)] += 1
        return batch

    def done(self, batch: list[Task], batch_s: float) -> None:
        """Instances do not wait for those that come back: on a GPU a batch takes too short."""

    def refuse(self, refused: Callable[[Sequence[Task]], None]) -> None:
        """Give what waits and what comes to `refused` at once, until `accept` is called.

        No instance may be in `take`.
        """
        self._refuser = threading.Thread(
            target=self._refuse, args=(refused,), name="refuser", daemon=True
        )
        self._refuser.start()

    def accept(self) -> None:
        """Let items wait for instances again."""
        if self._refuser is not None:
            os.eventfd_write(self._accepted, 1)
            self._refuser.join()
            os.eventfd_read(self._accepted)
            self._refuser = None

    def close(self) -> None:
        """Announce nothing any more."""
        if self._open:
            self._open = False
            os.close(self.writer)

    def _refuse(self, refused: Callable[[Sequence[Task]], None]) -> None:
        waiting = select.poll()
        waiting.register(self._reader, select.POLLIN)
        waiting.register(self._accepted, select.POLLIN)
        while self._accepted not in dict(waiting.poll()):
            tasks = self._read(_MOST_REFUSED)
            if tasks is None:
                return
            refused(tasks)

    def _read(self, largest: int) -> list[Task] | None:
        """Wait for items; None at the end."""
        read = os.read(self._reader, largest * _BYTES)
        if not read:
            return None
        pairs = (divmod(one, 1 << _SLOT_BITS) for one in array(_TYPE_CODE, read))
        return [task for pair in pairs if (task := self._task_of(*pair)) is not None]

    def _gather(self, smallest: int, largest: int) -> list[Task] | None:
        """Wait for items, and then for the fewest that may leave, until the oldest's time is up."""
        batch = self._read(largest)
        if not batch:
            return batch
        waiting = select.poll()
        waiting.register(self._reader, select.POLLIN)
        end_s = batch[0].queued_at_s + self._timeout_s
        while len(batch) < smallest and (left_s := end_s - time.monotonic()) > 0:
            if not waiting.poll(left_s * 1000):
                break
            more = self._read(largest - len(batch))
            if more is None:
                break
            batch += more
        return batch
