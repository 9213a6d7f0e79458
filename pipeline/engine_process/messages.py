"""What a worker and the engine process say to each other, besides slot numbers."""

from __future__ import annotations

import json
import os
import socket
import struct
from array import array
from typing import Any

_LENGTH = struct.Struct("<I")
_RECEIVE_BYTES = 4096
_NUMBER_BYTES = array("I").itemsize


def send_object(sock: socket.socket, content: dict[str, Any], fds: list[int] | None = None) -> None:
    """Send a JSON object, and descriptors with it."""
    text = json.dumps(content).encode()
    socket.send_fds(sock, [_LENGTH.pack(len(text))], fds or [])
    sock.sendall(text)


def receive_object(sock: socket.socket, max_fds: int = 0) -> tuple[dict[str, Any], list[int]]:
    """The other end's JSON object, and the descriptors that came with it.

    Raises:
        EOFError: the other process ended.
    """
    length, fds, _, _ = socket.recv_fds(sock, _LENGTH.size, max_fds)
    if not length:
        raise EOFError("the other process ended")
    wanted = _LENGTH.unpack(length)[0]
    text = b""
    while len(text) < wanted:
        more = sock.recv(wanted - len(text))
        if not more:
            raise EOFError("the other process ended")
        text += more
    for fd in fds:
        os.set_inheritable(fd, False)
    return json.loads(text), list(fds)


class SlotNumbers:
    """Slot numbers over a stream: many a call when there are many."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._rest = b""

    def send(self, slots: array[int]) -> None:
        """Send numbers; of several threads one at a time may."""
        self._socket.sendall(slots)

    def receive(self) -> array[int]:
        """Wait for numbers.

        Raises:
            EOFError: the other process ended.
        """
        try:
            received = self._rest + self._socket.recv(_RECEIVE_BYTES)
        except ConnectionResetError:
            received = b""
        if len(received) == len(self._rest):
            raise EOFError("the other process ended")
        whole = len(received) - len(received) % _NUMBER_BYTES
        self._rest = received[whole:]
        return array("I", received[:whole])
