"""Items that other processes submit on a pipe, as the batches of a node.

An idle instance waits in read(2), one write wakes one of them, and it reads all that is there: no
thread of this process stands between the workers and the instances, and no interpreter lock is
taken to hand an item on. What is more than its batch stays in an order that is fair between the
callers of all workers, from where the next instance takes it.
"""

from __future__ import annotations

import math
import os
import select
import threading
import time
from array import array
from collections import deque
from collections.abc import Callable, Sequence

from pipeline.runtime.batch_rule import BatchRule
from pipeline.runtime.counts import BatchCounts
from pipeline.runtime.fair_order import FairOrder
from pipeline.runtime.task import Task

# A submission: the worker's number and the slot's. A write of one is never torn apart.
_TYPE_CODE = "Q"
_BYTES = array(_TYPE_CODE).itemsize
_SLOT_BITS = 32
# Submissions that are read at once.
_MOST_READ = 4096
# Submits nothing: it wakes an instance, for which something is there already.
_NOTHING = 2**64 - 1


def submission(worker: int, slot: int) -> bytes:
    """What a worker writes into the pipe once an item is in a slot."""
    return array(_TYPE_CODE, [worker << _SLOT_BITS | slot]).tobytes()


class SubmissionQueue:
    """Hands out batches by `BatchRule`, fair between callers; thread-safe.

    As on a GPU a batch takes too short a time, instances do not wait for callers that come back.

    A suspect, which may be what ended the engine process before, leaves by itself, and the next one
    when it is done, or its time is over: of those that are at work when this process ends, one can
    be to blame again.

    Args:
        timeout_ms: longest wait of an item for others, `batching_timeout`.
        task_of: the item in a worker's slot, or None if that worker has gone.

    Attributes:
        writer: descriptor into which the workers write.
    """

    def __init__(self, timeout_ms: float, task_of: Callable[[int, int], Task | None]) -> None:
        self._task_of = task_of
        self._reader, self.writer = os.pipe()
        # The same end of the same pipe, for those who must not wait in read(2).
        self._looker = os.open(f"/proc/self/fd/{self._reader}", os.O_RDONLY | os.O_NONBLOCK)
        self._open = True
        # Reads while no instance does; the event ends it.
        self._refuser: threading.Thread | None = None
        self._accepted = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._lock = threading.Lock()
        self._order = FairOrder()
        self._rule = BatchRule(self._order, timeout_ms)
        self._suspects: deque[Task] = deque()
        self._suspect: Task | None = None
        # Instances that wait for submissions.
        self._waiting = 0

    def __enter__(self) -> SubmissionQueue:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
        self.accept()
        os.close(self._reader)
        os.close(self._looker)
        os.close(self._accepted)

    @property
    def counts(self) -> BatchCounts:
        """How many batches have left so far."""
        with self._lock:
            return self._rule.counts

    def take(self, smallest: int, largest: int) -> list[Task] | None:
        """Block until a batch of at most `largest` rows may leave; None once closed and empty.

        It is closed for the instances when no worker has the pipe open any more either.
        """
        while True:
            with self._lock:
                if self._order or self._suspects:
                    self._add(self._look())
                batch = None
                if self._suspect_leaves():
                    batch = self._remove_suspect(largest)
                elif self._order:
                    batch = self._rule.take(smallest, largest, time.monotonic())
                if batch is not None:
                    for task in batch:
                        task.call.begin()
                    if self._order or self._suspect_leaves():
                        self._wake()
                    return batch
                if self._rule.is_closing:
                    return None
                self._waiting += 1
                look_at_s = min(self._rule.leaves_at_s(smallest), self._suspect_over_at_s())
            tasks = self._wait(look_at_s)
            with self._lock:
                self._waiting -= 1
                self._add(tasks)

    def suspect_done(self, task: Task) -> None:
        """Let the next suspect leave: the worker of this one knows its outcome."""
        with self._lock:
            if self._suspect is task:
                self._suspect = None
            if self._suspect_leaves():
                self._wake()

    def done(self, batch: list[Task], batch_s: float) -> None:
        """Nothing: instances do not wait for callers that come back."""

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
        """Submit nothing any more."""
        with self._lock:
            if self._open:
                self._open = False
                os.close(self.writer)

    def _refuse(self, refused: Callable[[Sequence[Task]], None]) -> None:
        with self._lock:
            waiting = [*self._order.take_all(), *self._suspects]
            self._suspects.clear()
        if waiting:
            refused(waiting)
        poll = select.poll()
        poll.register(self._reader, select.POLLIN)
        poll.register(self._accepted, select.POLLIN)
        while self._accepted not in dict(poll.poll()):
            tasks = self._look()
            if tasks is None:
                return
            if tasks:
                refused(tasks)

    def _suspect_leaves(self) -> bool:
        if not self._suspects:
            return False
        # In the end no worker waits for any of them.
        if self._rule.is_closing or self._suspect is None:
            return True
        return self._suspect.call.expired()

    def _suspect_over_at_s(self) -> float:
        """When the next suspect may leave though the one before is not done; infinite for never."""
        deadline_s = self._suspect.call.deadline_s if self._suspects and self._suspect else None
        return math.inf if deadline_s is None else deadline_s

    def _wake(self) -> None:
        """Have one of the instances that wait look again."""
        if self._waiting and self._open:
            os.write(self.writer, array(_TYPE_CODE, [_NOTHING]).tobytes())

    def _remove_suspect(self, largest: int) -> list[Task]:
        self._suspect = self._suspects.popleft()
        self._rule.leaves_alone(self._suspect, largest)
        return [self._suspect]

    def _add(self, tasks: Sequence[Task] | None) -> None:
        """Put in order what was read; None is the end."""
        if tasks is None:
            self._rule.is_closing = True
            return
        for task in tasks:
            if task.call.is_suspect:
                self._suspects.append(task)
            else:
                self._order.put(task)

    def _wait(self, until_s: float) -> list[Task] | None:
        """Wait for submissions; None at the end, none if there are none in time."""
        if until_s == math.inf:
            return self._tasks(os.read(self._reader, _MOST_READ * _BYTES))
        poll = select.poll()
        poll.register(self._reader, select.POLLIN)
        poll.poll(max(0.0, until_s - time.monotonic()) * 1000)
        return self._look()

    def _look(self) -> list[Task] | None:
        """What is submitted by now; None at the end."""
        try:
            return self._tasks(os.read(self._looker, _MOST_READ * _BYTES))
        except BlockingIOError:
            return []

    def _tasks(self, read: bytes) -> list[Task] | None:
        if not read:
            return None
        pairs = (divmod(one, 1 << _SLOT_BITS) for one in array(_TYPE_CODE, read) if one != _NOTHING)
        return [task for pair in pairs if (task := self._task_of(*pair)) is not None]
