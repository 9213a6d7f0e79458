"""How much memory all images together may take, while they are decoded and after."""

from __future__ import annotations

import math
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from service.handlers.outcomes import DeadlineExceededError, ImageFailure, InvalidImageError
from service.handlers.this_thread import THIS_THREAD

_LIMIT_VARIABLE = "THRIFTPIPE_DECODE_MEMORY_BYTES"
# Nothing comes free for so long only where decoded images wait for one that is not decoded yet.
_STALLED_S = 5.0


@dataclass
class _Waiter:
    need_bytes: int
    granted: bool = False
    # A plain lock, held until there is room: waiting for it takes one call.
    gate: threading.Lock = field(default_factory=threading.Lock)


class DecodeMemory:
    """Counts the bytes of decodes at work and of images that were decoded and still exist.

    Threads that need more than there is wait, first come, first served, so that large images are
    not passed over without end by small ones. Safe in any thread.

    A thread that waits here must not hold an image that only it can let go. Where a graph makes it
    do so, nothing comes free any more, and a thread that waits is refused.

    Args:
        limit_bytes: the most of all together; infinite for no limit.
    """

    def __init__(self, limit_bytes: float = math.inf) -> None:
        self.limit_bytes = limit_bytes
        self._lock = threading.Lock()
        self._taken_bytes = 0
        self._waiting: deque[_Waiter] = deque()
        self._freed_at_s = 0.0
        # What came back while a thread had the lock. Images end in any line of any thread, also of
        # the one that holds it just then.
        self._returned: deque[int] = deque()
        # References that are to call back must exist themselves.
        self._kept: dict[int, weakref.ref[Any]] = {}

    @property
    def taken_bytes(self) -> int:
        """How many are taken now."""
        self._settle()
        return self._taken_bytes

    def take(self, need_bytes: int, deadline_s: float = math.inf) -> None:
        """Take room, as soon as there is some.

        Args:
            need_bytes: how much.
            deadline_s: until when the image is waited for, on the monotonic clock.

        Raises:
            InvalidImageError: it is more than there ever is.
            DeadlineExceededError: there was none in time.
            ImageFailure: nothing came free for a long time.
        """
        if need_bytes > self.limit_bytes:
            raise InvalidImageError(
                f"decoding the image takes {need_bytes} bytes of memory, and --max-decoded-bytes "
                f"allows {self.limit_bytes} here"
            )
        waiter = None
        with self._lock:
            if self._waiting or self._taken_bytes + need_bytes > self.limit_bytes:
                waiter = _Waiter(need_bytes)
                waiter.gate.acquire()
                self._waiting.append(waiter)
            else:
                self._taken_bytes += need_bytes
        self._settle()
        if waiter is not None:
            with THIS_THREAD.waits():
                self._wait(waiter, deadline_s)

    def give_back(self, count_bytes: int) -> None:
        """Free what was taken."""
        self._returned.append(count_bytes)
        self._settle()

    def keep_for(self, image: Any, count_bytes: int) -> None:
        """Give back what was taken when nothing refers to an image, or to a part of it, any more.

        Args:
            image: the array.
            count_bytes: what was taken for it.
        """

        def gone(reference: weakref.ref[Any]) -> None:
            del self._kept[id(reference)]
            self.give_back(count_bytes)

        # A fifth of the lines of `weakref.finalize`, which would be run for every image.
        reference = weakref.ref(image, gone)
        self._kept[id(reference)] = reference

    def _wait(self, waiter: _Waiter, deadline_s: float) -> None:
        began_s = time.monotonic()
        while True:
            now_s = time.monotonic()
            stalled_at_s = max(began_s, self._freed_at_s) + _STALLED_S
            if now_s < min(deadline_s, stalled_at_s):
                wait_s = min(deadline_s, stalled_at_s) - now_s
                if waiter.gate.acquire(timeout=wait_s):
                    return
                continue
            with self._lock:
                if waiter.granted:
                    return
                self._waiting.remove(waiter)
            # It may have been the one that others waited behind.
            self.give_back(0)
            if now_s >= deadline_s:
                raise DeadlineExceededError("no memory to decode the image came free in time")
            raise ImageFailure(
                f"no memory to decode the image came free for {_STALLED_S:g} s: decoded images "
                f"fill the {self.limit_bytes} bytes of --max-decoded-bytes; raise it, or let the "
                "node that decodes resize, too"
            )

    def _settle(self) -> None:
        """Count what came back, and let in what fits now."""
        while self._returned and self._lock.acquire(blocking=False):
            try:
                while self._returned:
                    self._taken_bytes -= self._returned.popleft()
                self._freed_at_s = time.monotonic()
                while (
                    self._waiting
                    and self._taken_bytes + self._waiting[0].need_bytes <= self.limit_bytes
                ):
                    waiter = self._waiting.popleft()
                    self._taken_bytes += waiter.need_bytes
                    waiter.granted = True
                    waiter.gate.release()
            finally:
                self._lock.release()


DECODE_MEMORY = DecodeMemory()
"""That of this process; without a limit until its server sets one."""


def limit_decode_memory(
    limit_bytes: int, environment: MutableMapping[str, str] = os.environ
) -> None:
    """Set the limit of this process and, unless they set one of their own, of its children."""
    DECODE_MEMORY.limit_bytes = limit_bytes
    environment[_LIMIT_VARIABLE] = str(limit_bytes)


def inherit_decode_memory(environment: Mapping[str, str] = os.environ) -> None:
    """Set the limit of the server that this process belongs to, if it belongs to one."""
    if _LIMIT_VARIABLE in environment:
        DECODE_MEMORY.limit_bytes = int(environment[_LIMIT_VARIABLE])
