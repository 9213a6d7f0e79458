"""Says what a start is busy with, for as long as it takes."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_log = logging.getLogger(__name__)

_FIRST_PAUSE_S = 10.0
_LONGEST_PAUSE_S = 300.0


@contextmanager
def told_while_slow(doing: str, first_pause_s: float = _FIRST_PAUSE_S) -> Iterator[None]:
    """Log that `doing` takes long, at first after `first_pause_s` and then after growing pauses.

    Args:
        doing: the subject of the line, such as "loading resnet50".
        first_pause_s: time before the first line; it doubles from line to line.
    """
    done = threading.Event()
    started_s = time.monotonic()

    def tell() -> None:
        pause_s = first_pause_s
        while not done.wait(pause_s):
            _log.warning("%s has taken %.0f s", doing, time.monotonic() - started_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    teller = threading.Thread(target=tell, name="slow-start", daemon=True)
    teller.start()
    try:
        yield
    finally:
        done.set()
        teller.join()
