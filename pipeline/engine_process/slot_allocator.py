"""Which slots of shared memory are free, and how much of that memory may be in use."""

from __future__ import annotations

import time
from collections import deque
from threading import Condition, Lock

from pipeline.engine_process.slots import SlotMemory

# Of free slots: as much as many images of a usual size, or a part of what is in use.
_KEPT_BYTES = 4 * 1024 * 1024
_KEPT_SHARE = 8


class SlotAllocator:
    """Lends slots, the last freed one first, and gives memory of the others back; thread-safe.

    Args:
        memory: the slots' own.
        count: how many of its slots are lent, from the first on.
        max_bytes: the most that items in lent slots take together; a larger one goes alone.
    """

    def __init__(self, memory: SlotMemory, count: int, max_bytes: int) -> None:
        self._memory = memory
        self._max_bytes = max_bytes
        self._kept_limit_bytes = min(_KEPT_BYTES, max_bytes // _KEPT_SHARE)
        # Free slots whose memory is kept, the last freed one at the right, and those without.
        self._kept: deque[tuple[int, int]] = deque()
        self._empty = list(reversed(range(count)))
        self._kept_bytes = 0
        self._lent: dict[int, int] = {}
        self._lent_bytes = 0
        self._closed = False
        self._changed = Condition(Lock())
        # Its holder is served next, so that small items cannot keep a large one waiting.
        self._next = Lock()

    def take(self, size_bytes: int, timeout_s: float | None) -> int | None:
        """A slot for an item of so many bytes; None if there is none in time.

        Once closed, every caller gets a slot, which leads to a connection that has ended.
        """
        end_s = None if timeout_s is None else time.monotonic() + timeout_s
        if not self._next.acquire(timeout=-1 if timeout_s is None else timeout_s):
            return None
        try:
            with self._changed:
                while not self._closed and not self._has_room(size_bytes):
                    left_s = None if end_s is None else end_s - time.monotonic()
                    if left_s is not None and left_s <= 0:
                        return None
                    self._changed.wait(left_s)
                return 0 if self._closed else self._lend(size_bytes)
        finally:
            self._next.release()

    def put(self, slot: int) -> None:
        """Take a slot back, of whose item and outcome nothing is in use any more."""
        with self._changed:
            if self._closed:
                return
            self._lent_bytes -= self._lent.pop(slot)
            used_bytes = self._memory.used_bytes(slot)
            self._kept.append((slot, used_bytes))
            self._kept_bytes += used_bytes
            while self._kept_bytes > self._kept_limit_bytes:
                oldest, oldest_bytes = self._kept.popleft()
                self._kept_bytes -= oldest_bytes
                self._memory.discard(oldest)
                self._empty.append(oldest)
            self._changed.notify()

    def close(self) -> None:
        """End every wait; the memory is not touched after this. Safe to repeat."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _has_room(self, size_bytes: int) -> bool:
        if not self._kept and not self._empty:
            return False
        return not self._lent or self._lent_bytes + size_bytes <= self._max_bytes

    def _lend(self, size_bytes: int) -> int:
        used_bytes = 0
        if self._kept:
            slot, used_bytes = self._kept.pop()
            self._kept_bytes -= used_bytes
            if self._lent_bytes + used_bytes > self._max_bytes:
                self._memory.discard(slot)
                used_bytes = 0
        else:
            slot = self._empty.pop()
        # What larger items have left in a slot is in use as well.
        self._lent[slot] = max(size_bytes, used_bytes)
        self._lent_bytes += self._lent[slot]
        return slot
