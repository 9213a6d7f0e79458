"""What a supervisor and its workers say to each other."""

from __future__ import annotations

import json
import os
import socket
from typing import Any, NamedTuple

_MAX_MESSAGE_BYTES = 64 * 1024


class ControlMessage(NamedTuple):
    """One message as it arrived.

    Attributes:
        content: what it says, by name.
        sock: the connection that came with it, if one did.
    """

    content: dict[str, Any]
    sock: socket.socket | None


class ControlChannel:
    """One end of the line between a supervisor and a worker.

    Messages are small JSON objects that arrive whole and in order; the operating system hands a
    connection over with one. The line breaks when either process ends, however it ends.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    @classmethod
    def pair(cls) -> tuple[ControlChannel, ControlChannel]:
        """Both ends."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(ours), cls(theirs)

    @classmethod
    def inherited(cls, fd: int) -> ControlChannel:
        """The end that this process was started with; its own children do not get it."""
        os.set_inheritable(fd, False)
        return cls(socket.socket(fileno=fd))

    def fileno(self) -> int:
        """The descriptor, for selectors."""
        return self._socket.fileno()

    def send(self, content: dict[str, Any], sock: socket.socket | None = None) -> bool:
        """Send a message, with a connection if one is given.

        Returns:
            Whether it was sent; False where the other process is gone.
        """
        data = json.dumps(content).encode()
        try:
            socket.send_fds(self._socket, [data], [] if sock is None else [sock.fileno()])
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def receive(self) -> ControlMessage | None:
        """Wait for the next message; None when the other process is gone."""
        while True:
            try:
                data, fds, _, _ = socket.recv_fds(self._socket, _MAX_MESSAGE_BYTES, 1)
                break
            except ConnectionResetError:
                # It left something of ours unread. What it said before can still be read.
                continue
        if not data:
            return None
        sock = None
        if fds:
            os.set_inheritable(fds[0], False)
            sock = socket.socket(fileno=fds[0])
        return ControlMessage(json.loads(data), sock)

    def close(self) -> None:
        """Break the line."""
        self._socket.close()
