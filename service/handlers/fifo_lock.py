"""A lock that is handed over in the order in which it was asked for."""

from __future__ import annotations

import threading
from collections import deque


class FifoLock:
    """A lock that waiting threads get in the order in which they asked.

    A plain lock goes to the thread that is running: a call of many images, which takes it once for
    each, kept it from all others until its last image.

    Args:
        holders: how many may hold it at once.
    """

    def __init__(self, holders: int = 1) -> None:
        self._guard = threading.Lock()
        self._free = holders
        self._waiting: deque[threading.Lock] = deque()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *exception: object) -> None:
        self.release()

    def acquire(self, timeout_s: float | None = None) -> bool:
        """Wait for the lock, for ever where `timeout_s` is None; whether it is held now."""
        with self._guard:
            if self._free:
                self._free -= 1
                return True
            gate = threading.Lock()
            gate.acquire()
            self._waiting.append(gate)
        if gate.acquire(timeout=-1 if timeout_s is None else max(0.0, timeout_s)):
            return True
        with self._guard:
            if gate not in self._waiting:
                # It was handed over after the time had passed.
                return True
            self._waiting.remove(gate)
            return False

    def release(self) -> None:
        """Hand it to the thread that has waited longest."""
        with self._guard:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._free += 1
