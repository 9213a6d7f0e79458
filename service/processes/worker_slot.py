"""The place of one worker, whichever process takes it."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from service.processes.worker_process import WorkerProcess

# Before the second attempt to start a worker; twice as long before each further one.
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0
# Further ones are only for a worker that the others can do without.
_ATTEMPTS = 3


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
        pause_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** (self.failed_starts - 1))
        self.start_in(pause_s)
        return pause_s
