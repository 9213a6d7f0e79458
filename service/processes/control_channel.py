"""Messages between two processes of a server, with file descriptors."""

from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from interfaces.messages import from_json, to_json

# The kernel sends what fits into the send buffer, net.core.wmem_default, of about 200 KB.
_MAX_MESSAGE_BYTES = 1024 * 1024


class Received(NamedTuple):
    """One message as it arrived.

    Attributes:
        content: the message.
        fds: the descriptors that came with it; the receiver owns them.
    """

    content: Any
    fds: Sequence[int]

    def descriptor(self) -> int:
        """The one descriptor that came with the message.

        Raises:
            OSError: this process has no descriptor left for it.
        """
        if not self.fds:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return self.fds[0]


class ControlChannel:
    """One end of a channel for small messages, which arrive whole and in order.

    A message is a dataclass as `interfaces.messages` takes it. The channel breaks when either
    process ends, however it ends.

    Args:
        sock: a connected Unix socket of type SOCK_SEQPACKET.
        messages: the dataclasses that may be received.
    """

    def __init__(self, sock: socket.socket, messages: Collection[type]) -> None:
        self._socket = sock
        self._messages = messages

    @classmethod
    def pair(cls, messages: Collection[type]) -> tuple[ControlChannel, ControlChannel]:
        """Both ends."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(ours, messages), cls(theirs, messages)

    @classmethod
    def inherited(cls, fd: int, messages: Collection[type]) -> ControlChannel:
        """The end that this process was started with; its own children do not get it."""
        os.set_inheritable(fd, False)
        return cls(socket.socket(fileno=fd), messages)

    def fileno(self) -> int:
        """The socket's descriptor, for selectors."""
        return self._socket.fileno()

    def send(self, content: Any, fds: Sequence[int] = ()) -> bool:
        """Send a message, with copies of descriptors.

        Returns:
            Whether it was sent; False where the other process is gone, or the system has no
            memory for a message.

        Raises:
            OSError: the descriptors cannot be sent now.
        """
        data = to_json(content).encode()
        try:
            socket.send_fds(self._socket, [data], fds)
        except (BrokenPipeError, ConnectionResetError):
            return False
        except OSError:
            if fds:
                raise
            return False
        return True

    def has_message(self) -> bool:
        """Whether `receive` would return at once."""
        unread = select.poll()
        unread.register(self._socket, select.POLLIN)
        return bool(unread.poll(0))

    def receive(self) -> Received | None:
        """Wait for the next message; None when the other process is gone."""
        while True:
            try:
                data, fds, _, _ = socket.recv_fds(self._socket, _MAX_MESSAGE_BYTES, 1)
                break
            except ConnectionResetError:
                # Something of ours was left unread. What was sent before can still be read.
                continue
        if not data:
            return None
        for fd in fds:
            os.set_inheritable(fd, False)
        return Received(from_json(data, self._messages), fds)

    def close(self) -> None:
        """Break the channel."""
        self._socket.close()
