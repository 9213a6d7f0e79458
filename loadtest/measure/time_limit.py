"""A measurement that ends in time, whatever it waits for."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from loadtest.errors import LoadTestError


class TimeIsOverError(LoadTestError):
    """The time of --budget_s is over."""


@contextmanager
def ends_by(end_s: float) -> Iterator[None]:
    """End the block at that time, on the clock of `time.monotonic`, from the main thread.

    Raises:
        TimeIsOverError: in the block, when the time is over.
    """
    previous = signal.signal(signal.SIGALRM, _raise)
    signal.setitimer(signal.ITIMER_REAL, max(1.0, end_s - time.monotonic()))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def _raise(signum: int, frame: FrameType | None) -> None:
    del signum, frame
    raise TimeIsOverError("the time of --budget_s is over")
