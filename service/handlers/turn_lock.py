"""A lock that the thread which gave it back does not get before those that wait."""

from __future__ import annotations

import threading
from collections import deque
from time import monotonic


class TurnLock:
    """A lock that a thread gets again only after all that wait for it; they get it in their order.

    With a plain lock, a call of many images, which takes it once for each, keeps it from all others
    until its last image. A lock that is always handed over in order is no better: while the next
    thread wakes up, nobody runs. So a thread that comes anew takes this one when it is free, as it
    would take a plain one.

    Args:
        holders: how many may hold it at once.
    """

    def __init__(self, holders: int = 1) -> None:
        self._guard = threading.Lock()
        self._free = holders
        self._waiting: deque[threading.Lock] = deque()
        # The threads that gave it back last.
        self._had_it: deque[int] = deque(maxlen=holders)

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *exception: object) -> None:
        self.release()

    def acquire(self, timeout_s: float | None = None) -> bool:
        """Wait for the lock, for ever where `timeout_s` is None; whether it is held now."""
        end_s = None if timeout_s is None else monotonic() + timeout_s
        with self._guard:
            if self._free and not (self._waiting and threading.get_ident() in self._had_it):
                self._free -= 1
                return True
            gate = threading.Lock()
            gate.acquire()
            self._waiting.append(gate)
        while True:
            in_time = gate.acquire(timeout=-1 if end_s is None else max(0.0, end_s - monotonic()))
            with self._guard:
                if self._free and gate is self._waiting[0]:
                    self._free -= 1
                    self._waiting.popleft()
                    self._wake_first()
                    return True
                if not in_time:
                    self._waiting.remove(gate)
                    self._wake_first()
                    return False

    def release(self) -> None:
        """Let the thread that has waited longest try for it."""
        with self._guard:
            self._free += 1
            self._had_it.append(threading.get_ident())
            self._wake_first()

    def _wake_first(self) -> None:
        if self._free and self._waiting and self._waiting[0].locked():
            self._waiting[0].release()
