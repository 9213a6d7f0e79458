"""The workers of a server, their starts, and what becomes of a start that fails."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from service.handlers.restart_policy import RestartPolicy
from service.processes.lifecycle import Lifecycle
from service.processes.worker_messages import StartFailure
from service.processes.worker_process import WorkerProcess

_log = logging.getLogger(__name__)

_RESTARTS = RestartPolicy(first_wait_s=0.5, longest_wait_s=30.0)
# Further ones are only for a worker that the others can do without.
_ATTEMPTS = 3


class WorkerError(Exception):
    """A worker cannot be started.

    Attributes:
        exit_code: the server's.
    """

    def __init__(self, failure: StartFailure) -> None:
        super().__init__(failure.line)
        self.exit_code = failure.exit_code


@dataclass(eq=False)
class WorkerSlot:
    """One of the workers of a server; its process is replaced when it ends.

    Attributes:
        index: the worker's number.
        worker: its process, if there is one.
        start_at_s: when the next start is due, on the monotonic clock; infinite where none is.
        failed_starts: how many in a row ended before they were ready.
    """

    index: int
    worker: WorkerProcess | None = None
    start_at_s: float = math.inf
    failed_starts: int = 0

    @property
    def is_due(self) -> bool:
        """Whether it is time to start a process."""
        return self.start_at_s <= time.monotonic()

    @property
    def has_attempts_left(self) -> bool:
        """Whether its starts have not yet failed as often as they may in a row."""
        return self.failed_starts < _ATTEMPTS

    def start_in(self, pause_s: float) -> None:
        """Let a start be due after that time."""
        self.start_at_s = time.monotonic() + pause_s

    def retry(self) -> float:
        """Let a start be due after a pause that doubles with each failed one; returns the pause."""
        pause_s = _RESTARTS.wait_s(self.failed_starts)
        self.start_in(pause_s)
        return pause_s


class WorkerSlots:
    """Starts the processes of workers, and those that follow one that has ended.

    Used by the supervisor's serving thread only.

    Args:
        count: how many workers there are.
        server: is stopped where a worker cannot be started.
        launch: starts the process of the worker with that index.

    Attributes:
        failure: why the server was stopped, if it was.
    """

    def __init__(
        self, count: int, server: Lifecycle, launch: Callable[[int], WorkerProcess]
    ) -> None:
        self._slots = [WorkerSlot(index) for index in range(count)]
        self._server = server
        self._launch = launch
        self.failure: WorkerError | None = None

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def next_start_s(self) -> float:
        """When the next start is due, on the monotonic clock; infinite where none is."""
        return min(slot.start_at_s for slot in self._slots)

    def taken(self) -> list[tuple[WorkerSlot, WorkerProcess]]:
        """The slots that have a process, each with it."""
        return [(slot, slot.worker) for slot in self._slots if slot.worker is not None]

    def workers(self) -> list[WorkerProcess]:
        """The processes that there are."""
        return [worker for _, worker in self.taken()]

    def serving(self) -> list[WorkerProcess]:
        """Those of them that are ready for connections."""
        return [worker for worker in self.workers() if worker.running]

    def want(self, count: int) -> None:
        """Let a start be due in each of the first slots that has no process."""
        for slot in self._slots[:count]:
            if slot.worker is None:
                slot.start_in(0.0)

    def want_none(self) -> None:
        """Let no further start be due."""
        for slot in self._slots:
            slot.start_at_s = math.inf

    def start_due(self) -> Iterator[tuple[WorkerSlot, WorkerProcess]]:
        """Start the processes that are due: gives each that has come to be, with its slot."""
        for slot in self._slots:
            if not slot.is_due:
                continue
            slot.start_at_s = math.inf
            try:
                slot.worker = self._launch(slot.index)
            except OSError as error:
                self.start_failed(slot, f"cannot be started: {error.strerror}", None)
            else:
                yield slot, slot.worker

    def start_failed(self, slot: WorkerSlot, how: str, failure: StartFailure | None) -> None:
        """Try again after a pause, or stop the server.

        Args:
            slot: whose process has ended before it was ready, or did not come to be.
            how: what has happened, in words.
            failure: what the process has said, if it could.
        """
        slot.failed_starts += 1
        if failure is not None and not self._server.ready:
            # Its settings cannot work: the next attempt would say the same.
            self._give_up(slot, failure)
        elif self._may_try_again(slot):
            pause_s = slot.retry()
            reason = how if failure is None else failure.line
            _log.error("worker %d: %s; the next attempt is in %g s", slot.index, reason, pause_s)
        else:
            line = (
                f"worker {slot.index} {how}, {slot.failed_starts} times in a row; "
                "the log above has what it said"
            )
            self._give_up(slot, failure or StartFailure(line, 1))

    def _may_try_again(self, slot: WorkerSlot) -> bool:
        """Whether to try a start once more: always, once another worker serves or still may."""
        if not self._server.ready:
            return slot.has_attempts_left
        return any(other.has_attempts_left for other in self._slots)

    def _give_up(self, slot: WorkerSlot, failure: StartFailure) -> None:
        self.failure = WorkerError(failure)
        self._server.stop(f"worker {slot.index} cannot be started")
