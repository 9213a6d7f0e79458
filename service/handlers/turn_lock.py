"""A lock that a thread does not get twice while others wait for it."""

from __future__ import annotations

import threading
import time
from collections import deque


class TurnLock:
    """A lock whose last holder lets a thread that waits go first.

    A call of many images takes the lock once for each. A plain lock goes to the thread that is
    running, which would keep it from all other calls until the last image. Always handing it over
    in order would cost all of them: nothing runs while the next thread wakes up.

    Args:
        holders: how many may hold it at once.
    """

    def __init__(self, holders: int = 1) -> None:
        self._lock = threading.Lock() if holders == 1 else threading.Semaphore(holders)
        # Sets, lists and deques, since what they do is atomic.
        self._waiting: set[int] = set()
        self._had_it: deque[int] = deque(maxlen=holders)
        # Of threads that let others go first; open once one of these has it.
        self._gates: list[threading.Lock] = []

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *exception: object) -> None:
        self.release()

    def acquire(self, timeout_s: float | None = None) -> bool:
        """Wait for the lock, for ever where `timeout_s` is None; whether it is held now."""
        end_s = None if timeout_s is None else time.monotonic() + timeout_s
        me = threading.get_ident()
        if self._waiting and me in self._had_it and self._lock.acquire(blocking=False):
            self._lock.release()
            gate = threading.Lock()
            gate.acquire()
            self._gates.append(gate)
            if self._waiting:
                _acquire(gate, end_s)
        self._waiting.add(me)
        held = _acquire(self._lock, end_s)
        self._waiting.discard(me)
        while self._gates:
            try:
                self._gates.pop().release()
            except IndexError:
                break
        return held

    def release(self) -> None:
        """Give it back."""
        self._had_it.append(threading.get_ident())
        self._lock.release()


def _acquire(lock: threading.Lock | threading.Semaphore, end_s: float | None) -> bool:
    if end_s is None:
        return lock.acquire()
    return lock.acquire(timeout=max(0.0, end_s - time.monotonic()))
