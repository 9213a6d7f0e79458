"""A lock on hardware that only one instance of a node can use at a time."""

from __future__ import annotations

import threading


class DecoderLock:
    """Lets the instances of a node fetch and decode their batches one after the other.

    A GPU's JPEG engine decodes two batches at once no sooner than one after the other, and then
    both instances compute at the same time, while it has nothing to do. So an instance waits for
    the lock first and for items second, and releases the lock when it has decoded: the next
    instance decodes while this one computes, and until then all that comes joins one batch.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holder: int | None = None

    def acquire(self) -> None:
        """Block until the calling thread has it."""
        self._lock.acquire()
        self._holder = threading.get_ident()

    def release(self) -> None:
        """Let the next thread have it; does nothing if the calling thread does not hold it."""
        if self._holder == threading.get_ident():
            self._holder = None
            self._lock.release()
