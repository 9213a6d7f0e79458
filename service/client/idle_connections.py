"""Connections that no call uses, kept for the next one."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Generic, TypeVar

from service.client.exchange import ConnectionState

_Connection = TypeVar("_Connection", bound=ConnectionState)


class IdleConnections(Generic[_Connection]):
    """The idle connections of a pool. Any thread may call this.

    Args:
        idle_timeout_s: a connection that was unused for longer is closed instead of used again.
    """

    def __init__(self, idle_timeout_s: float) -> None:
        self._idle_timeout_s = idle_timeout_s
        self._lock = threading.Lock()
        # The one that was used last is at the right, and is the first to be used again.
        self._kept: deque[_Connection] = deque()

    def take(self) -> _Connection | None:
        """A connection that can be relied on; all others that come up are closed."""
        with self._lock:
            oldest_s = time.monotonic() - self._idle_timeout_s
            while self._kept and self._kept[0].idle_since_s < oldest_s:
                self._kept.popleft().close()
            while self._kept:
                connection = self._kept.pop()
                if connection.usable():
                    return connection
                connection.close()
        return None

    def put(self, connection: _Connection) -> None:
        """Keep a connection that is sound, and close any other."""
        if connection.sound:
            with self._lock:
                self._kept.append(connection)
        else:
            connection.close()

    def close_all(self) -> list[_Connection]:
        """Close all connections; they are returned."""
        with self._lock:
            closed = list(self._kept)
            self._kept.clear()
        for connection in closed:
            connection.close()
        return closed
