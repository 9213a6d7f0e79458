"""Warnings that come often, limited in rate."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable

PERIOD_S = 10.0
"""From one line of a kind to the next."""


class RateLimitedWarnings:
    """Warnings of one kind: the first one at once, and then one in each period, with a count.

    Args:
        log: where they are written; those left out are there at the level DEBUG.
        period_s: from one to the next.
        clock: tells the time in seconds.
    """

    def __init__(
        self,
        log: logging.Logger,
        period_s: float = PERIOD_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = log
        self._clock = clock
        self._period_s = period_s
        self._lock = threading.Lock()
        self._next_s = -math.inf
        self._left_out = 0

    def warn(self, message: str, *arguments: object) -> None:
        """Write a line, or count it; any thread may call this."""
        with self._lock:
            now_s = self._clock()
            is_due = now_s >= self._next_s
            left_out, self._left_out = self._left_out, 0 if is_due else self._left_out + 1
            if is_due:
                self._next_s = now_s + self._period_s
        if not is_due:
            self._log.debug(message, *arguments)
        elif left_out:
            self._log.warning(f"{message} (and {left_out} more of this kind)", *arguments)
        else:
            self._log.warning(message, *arguments)
