"""The open connections of a server, each served by a thread of its own."""

from __future__ import annotations

import math
import socket
import threading
import time
from collections.abc import Callable

from service.accepting.listener import RESERVE_CONNECTIONS
from service.wire.connection import Connection
from service.wire.peer import Peer, serve_peer

# Where the reserve is full, a connection that has sent nothing for so long may be closed.
SILENCE_S = 0.1


class ConnectionThreads:
    """Starts the threads, and knows which connections are open.

    Args:
        on_close: called by a thread at its end, when its connection is gone.

    Attributes:
        opened: how many there have been.
    """

    def __init__(self, on_close: Callable[[], None]) -> None:
        self._on_close = on_close
        self.opened = 0
        self._lock = threading.Lock()
        # In the order in which they came.
        self._open: dict[Connection, None] = {}
        self._finished: list[threading.Thread] = []
        self._finished_reserve = 0
        # Of the thread that accepts; also some that have ended.
        self._reserve: list[Connection] = []

    def start(self, connection: Connection, sock: socket.socket) -> None:
        """Serve a connection.

        Raises:
            RuntimeError: the system has no thread left; the socket is closed.
        """
        with self._lock:
            self._open[connection] = None
            self.opened += 1
        thread = threading.Thread(
            target=self._serve,
            args=(connection, sock),
            name=f"connection-{connection.address}",
            daemon=True,
        )
        try:
            thread.start()
        except RuntimeError:
            sock.close()
            with self._lock:
                self._open.pop(connection)
            raise
        if connection.is_reserve:
            self._reserve.append(connection)

    def _serve(self, connection: Connection, sock: socket.socket) -> None:
        serve_peer(Peer(sock, connection.take_memory))
        try:
            connection.serve()
        finally:
            with self._lock:
                self._open.pop(connection)
                self._finished.append(threading.current_thread())
                self._finished_reserve += connection.is_reserve
            self._on_close()

    def open(self) -> list[Connection]:
        """The open connections, the oldest first."""
        with self._lock:
            return list(self._open)

    def in_flight(self) -> int:
        """How many requests are being read, worked on or answered."""
        return sum(not connection.idle for connection in self.open())

    def join_finished(self) -> tuple[int, int]:
        """Wait for the last steps of threads whose connections are gone.

        Returns:
            How many these are, and how many of them had reserve connections.
        """
        with self._lock:
            finished, self._finished = self._finished, []
            reserve, self._finished_reserve = self._finished_reserve, 0
        for thread in finished:
            thread.join()
        return len(finished), reserve

    def free_reserve(self) -> float:
        """With the reserve full, close its connection that has been silent for longest.

        So the next client that asks is answered soon, however many others send nothing; and one
        that has only just been accepted has the time to ask.

        Returns:
            When one will have been silent for long enough, on the monotonic clock; infinite where
            none is.
        """
        with self._lock:
            self._reserve = [one for one in self._reserve if one in self._open]
        if len(self._reserve) < RESERVE_CONNECTIONS:
            return math.inf
        silent = next((one for one in self._reserve if one.is_silent), None)
        if silent is None:
            return math.inf
        if (due_s := silent.opened_s + SILENCE_S) > time.monotonic():
            return due_s
        self._reserve.remove(silent)
        silent.cut_off()
        return math.inf
