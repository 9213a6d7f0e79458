"""Wakes a thread that waits in a selector."""

from __future__ import annotations

import socket


class WakeupPipe:
    """A pair of sockets: `set` makes the receiving one readable, in any thread or signal handler.

    Attributes:
        receiver: to be registered with the selector.
    """

    def __init__(self) -> None:
        self.receiver, self._sender = socket.socketpair()
        self.receiver.setblocking(False)
        self._sender.setblocking(False)

    def set(self) -> None:
        """Wake the selector."""
        try:
            self._sender.send(b"\0")
        except OSError:
            # Full: it wakes anyway. Closed: there is no thread to wake.
            return

    def clear(self) -> None:
        """Let the selector sleep again."""
        try:
            while self.receiver.recv(4096):
                pass
        except BlockingIOError:
            return

    def close(self) -> None:
        """Close both sockets; `set` does nothing then."""
        self.receiver.close()
        self._sender.close()
