"""How much memory the messages of all connections may take together."""

from __future__ import annotations

import threading

from service.scanner import ProtocolError

RETRY_AFTER_MS = 200
"""When a client may try again. Messages are small beside the limit, and come and go quickly."""


class MemoryFullError(ProtocolError):
    """A message for which there is no room beside the others."""


class MessageMemory:
    """Counts the bytes of the messages that are in the server, while they arrive and after.

    Args:
        limit_bytes: the most of all connections together.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._lock = threading.Lock()
        self._taken_bytes = 0

    def take(self, count_bytes: int) -> None:
        """Take room for more of a message; MemoryFullError if there is not enough."""
        with self._lock:
            if self._taken_bytes + count_bytes > self._limit_bytes:
                raise MemoryFullError(
                    f"messages take {self._taken_bytes} bytes now, --max-buffered-bytes allows "
                    f"{self._limit_bytes} here; {count_bytes} more do not fit"
                )
            self._taken_bytes += count_bytes

    def give_back(self, count_bytes: int) -> None:
        """Free what a message has taken."""
        with self._lock:
            self._taken_bytes -= count_bytes
