"""Waiting for what other threads and processes do."""

from __future__ import annotations

import time
from collections.abc import Callable

_TIMEOUT_S = 120.0
_PAUSE_S = 0.01


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait until it is true.

    With pauses: asking without one, often a server, takes the core that what is waited for needs.
    """
    end_s = time.monotonic() + _TIMEOUT_S
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(_PAUSE_S)
