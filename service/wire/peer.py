"""The client at the other end of a thread's connection.

One thread serves one connection, so the thread knows its client, and nothing has to watch the
connections: code that is about to work for a client asks the kernel whether it is connected.
"""

from __future__ import annotations

import errno
import socket
import threading
import time
from collections.abc import Callable
from struct import Struct

# The first byte of the kernel's struct tcp_info: the connection's state (linux/tcp.h).
_STATE_BYTES = 1
_ESTABLISHED = 1
# Where that struct has how many bytes have come.
_BYTES_RECEIVED = Struct("@128xQ")
# However long a client was told to wait: a connection may carry the calls of many, and this slows
# those that do not wait down enough.
_LONGEST_HOLD_S = 0.02


class Peer:
    """The client of one connection.

    A client that has closed the connection, or its own half of it, has gone: the kernel does not
    tell these apart. What the server itself does to the half that it receives on, as when it
    drains, does not change the state.

    Args:
        sock: the connection, plain or TLS.
        take_memory: counts bytes that its call takes until it is answered, or refuses them.

    Attributes:
        arrived_s: when its call was there as a whole, on the monotonic clock.
        take_memory: as given.
    """

    def __init__(
        self, sock: socket.socket, take_memory: Callable[[int], None] = lambda _: None
    ) -> None:
        self._socket = sock
        self.take_memory = take_memory
        self.arrived_s = time.monotonic()
        self._welcome_at_s = 0.0

    def fileno(self) -> int:
        """The connection's descriptor, for those that wait for several; -1 once it is closed."""
        return self._socket.fileno()

    def held_back_s(self, retry_after_ms: int, now_s: float) -> float:
        """For how long to keep a refusal back: what is left of the wait that the last one told.

        A client that comes back at once, again and again, would take the time in which those that
        are served make room for it.

        Args:
            retry_after_ms: what the refusal says.
            now_s: on the monotonic clock.
        """
        held_s = min(max(0.0, self._welcome_at_s - now_s), _LONGEST_HOLD_S)
        self._welcome_at_s = now_s + held_s + retry_after_ms / 1000
        return held_s

    def is_disconnected(self) -> bool:
        """Whether the reply can no longer be read. Any thread may ask; one system call."""
        try:
            info = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _STATE_BYTES)
        except OSError as error:
            # Closed here, or else no TCP connection, of which the kernel knows nothing.
            return error.errno == errno.EBADF
        return info[0] != _ESTABLISHED


def arrived_on(sock: socket.socket) -> int:
    """How many bytes of a connection have come, read or not.

    0 where the kernel does not tell: it is no TCP connection, or it has been closed meanwhile.
    """
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_RECEIVED.size)
    except OSError:
        return 0
    received_bytes: int = _BYTES_RECEIVED.unpack(info)[0]
    return received_bytes


_of_thread = threading.local()


def serve_peer(peer: Peer) -> None:
    """From now on this thread serves this client."""
    _of_thread.peer = peer


def call_arrived() -> None:
    """A call of this thread's client is there as a whole: its stay begins."""
    if (peer := current_peer()) is not None:
        peer.arrived_s = time.monotonic()


def hold_back(retry_after_ms: int) -> None:
    """Before a refusal: wait if this thread's client came back sooner than it was told to."""
    peer = current_peer()
    if peer is not None and (held_s := peer.held_back_s(retry_after_ms, time.monotonic())):
        time.sleep(held_s)


def current_peer() -> Peer | None:
    """The client that this thread serves; None in a thread that serves no connection."""
    return getattr(_of_thread, "peer", None)
