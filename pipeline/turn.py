"""Turns at what only one instance of a node can use at a time."""

from __future__ import annotations

import threading


class Turn:
    """Lets the instances of a node fetch their batches one after the other.

    A GPU's JPEG engine decodes two batches at once no sooner than one after the other, and then
    both instances compute at the same time, while it has nothing to do. So an instance waits for
    the turn first and for items second, and passes the turn on when it has decoded: the next
    instance decodes while this one computes, and until then all that comes joins one batch.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holder: int | None = None

    def wait(self) -> None:
        """Block until the calling thread has the turn."""
        self._lock.acquire()
        self._holder = threading.get_ident()

    def pass_on(self) -> None:
        """Let the next thread have it; does nothing if the calling thread has it not."""
        if self._holder == threading.get_ident():
            self._holder = None
            self._lock.release()
