"""How much memory the messages of all connections may take together."""

from __future__ import annotations

import logging
import math
import threading
import time
from operator import itemgetter
from typing import Protocol

from service.call_counts import MEMORY
from service.logs.rate_limited import RateLimitedWarnings
from service.malloc_arenas import trim_arenas
from service.wire.scanner import LimitError, ProtocolError

_log = logging.getLogger(__name__)

POOLED_BUFFER_BYTES = 256 * 1024
"""What a message of the usual size is received into."""
# Of the limit: what is freed before the heaps are trimmed.
_TRIMMED_SHARE = 16
# Of the limit: unused buffers, and those that connections keep. What is decoded of the
# messages in these does not count either: it is as much again.
_FREE_SHARE, _KEPT_SHARE = 32, 32

# For so long a message may keep room from others, however slowly it comes.
_LEAST_AGE_S = 1.0

# Messages are small beside the limit, and come and go quickly.
_RETRY_AFTER_MS = 200


class MemoryFullError(ProtocolError):
    """A message for which there is no room beside the others.

    Attributes:
        retry_after_ms: when its client may try again.
        reason: what there is no room in, in one word.
    """

    def __init__(
        self, message: str, retry_after_ms: int = _RETRY_AFTER_MS, reason: str = MEMORY
    ) -> None:
        super().__init__(message)
        self.retry_after_ms = retry_after_ms
        self.reason = reason


class Arriving(Protocol):
    """A message that has taken room and has not arrived as a whole.

    Any thread may ask.
    """

    @property
    def began_s(self) -> float:
        """When its first byte came, on the monotonic clock; infinite where none has."""

    @property
    def taken_bytes(self) -> int:
        """How much room it has."""

    @property
    def arrived_bytes(self) -> int:
        """How much of it has come."""

    def bytes_per_s(self, now_s: float, least_s: float) -> float:
        """How fast it comes of late; infinite where it has not come for `least_s`."""

    @property
    def is_dropped(self) -> bool:
        """Whether its room comes back."""

    def drop(self, reason: str) -> None:
        """Refuse it, in its own thread."""


class BufferBudget:
    """Counts the bytes of the messages that are in the server, while they arrive and after.

    Args:
        limit_bytes: the most of all connections together.

    Attributes:
        refusals: for the log, of messages that found no room.
        arriving: those that have some, but not all of their bytes.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.refusals = RateLimitedWarnings(_log)
        self.arriving: dict[Arriving, None] = {}
        self._limit_bytes = limit_bytes
        self._lock = threading.Lock()
        self._taken_bytes = 0
        # Of large blocks, since the heaps were trimmed.
        self._freed_bytes = 0
        self._trim_bytes = limit_bytes // _TRIMMED_SHARE
        self._free: list[memoryview] = []
        self._most_free = limit_bytes // _FREE_SHARE // POOLED_BUFFER_BYTES
        self._kept = 0
        self._most_kept = limit_bytes // _KEPT_SHARE // POOLED_BUFFER_BYTES

    def take(self, count_bytes: int, held_bytes: int = 0, whole_bytes: int = 0) -> None:
        """Take room for more of a message.

        Where there is none, messages that come most slowly of late are dropped, of those that began
        a second ago, so that this one finds its room when its client tries again.

        Args:
            count_bytes: how much more.
            held_bytes: what it has already.
            whole_bytes: what it will have at least, as far as is known.

        Raises:
            MemoryFullError: there is not enough just now.
            LimitError: there would not be enough if it were alone.
        """
        if held_bytes + count_bytes > self._limit_bytes:
            raise LimitError(
                f"the call takes {held_bytes + count_bytes} bytes with what is decoded of it and "
                f"its reply, --max-buffered-bytes allows {self._limit_bytes} here"
            )
        with self._lock:
            taken_bytes = self._taken_bytes
            if taken_bytes + count_bytes <= self._limit_bytes:
                self._taken_bytes += count_bytes
                return
        self._drop_slow_ones(max(held_bytes + count_bytes, whole_bytes))
        raise MemoryFullError(
            f"messages take {taken_bytes} bytes now, --max-buffered-bytes allows "
            f"{self._limit_bytes} here; {count_bytes} more do not fit"
        )

    def give_back(self, count_bytes: int, large_bytes: int = 0) -> None:
        """Free what a message has taken.

        Args:
            count_bytes: all of it.
            large_bytes: what it had of that in large blocks.
        """
        with self._lock:
            self._taken_bytes -= count_bytes
            self._freed_bytes += large_bytes
            if self._freed_bytes < self._trim_bytes:
                return
            self._freed_bytes = 0
        trim_arenas()

    def _drop_slow_ones(self, need_bytes: int) -> None:
        """Drop as many as take what is missing of that."""
        missing_bytes = need_bytes - (self._limit_bytes - self._taken_bytes)
        now_s = time.monotonic()
        slow = []
        for message in list(self.arriving):
            if message.is_dropped:
                missing_bytes -= message.taken_bytes
            elif math.isfinite(rate := message.bytes_per_s(now_s, _LEAST_AGE_S)):
                slow.append((rate, message))
        for rate, message in sorted(slow, key=itemgetter(0)):
            if missing_bytes <= 0:
                return
            missing_bytes -= message.taken_bytes
            message.drop(
                f"{message.arrived_bytes} bytes of a message came in {now_s - message.began_s:.1f} "
                f"s, {rate / 1000:.0f} kB/s of late, while others found no room in "
                f"--max-buffered-bytes"
            )

    def buffer(self) -> memoryview:
        """A buffer of POOLED_BUFFER_BYTES, whatever lies in it; its user counts what it needs."""
        try:
            return self._free.pop()
        except IndexError:
            return memoryview(bytearray(POOLED_BUFFER_BYTES))

    def free_buffer(self, buffer: memoryview) -> None:
        """Take back a buffer of any size, for others."""
        if len(buffer) == POOLED_BUFFER_BYTES and len(self._free) < self._most_free:
            self._free.append(buffer)

    def keep_buffer(self) -> bool:
        """Whether a connection may keep such a buffer until its next message; few may."""
        with self._lock:
            self._kept += (may := self._kept < self._most_kept)
        return may

    def leave_buffer(self) -> None:
        """A connection keeps its buffer no longer."""
        with self._lock:
            self._kept -= 1
