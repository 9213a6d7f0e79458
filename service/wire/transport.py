"""How bytes travel between a client and its connection, and how long they may take."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from struct import Struct
from typing import Protocol

_TIMEVAL = Struct("@ll")
_NO_TIMEOUT = _TIMEVAL.pack(0, 0)

_KEEPALIVE_IDLE_S, _KEEPALIVE_INTERVAL_S, _KEEPALIVE_PROBES = 60, 15, 4


@dataclass(frozen=True)
class Timeouts:
    """How long a client may take.

    Attributes:
        idle_s: until its next message begins; 0 for no limit.
        message_s: to send one message, once it has begun; also for a TLS handshake.
        write_s: to take one reply.
    """

    idle_s: float = 600.0
    message_s: float = 30.0
    write_s: float = 30.0


class Transport(Protocol):
    """A connection's way to its client; used by the connection's thread, but for what says so.

    Whatever takes too long raises TimeoutError, whose text names the limit; a connection that
    breaks raises OSError.

    Attributes:
        sock: the client's socket, for questions to the kernel.
        received_bytes: how many have been received on it, by calls that are over.
    """

    sock: socket.socket

    @property
    def received_bytes(self) -> int:
        """As above."""

    def open(self) -> None:
        """Set the connection up, before anything else.

        Raises:
            ProtocolError: the client is none that is served here.
            EOFError: the client closed the connection meanwhile.
            OSError: it did so without a word, or the connection broke.
        """

    def receive_first(self, buffer: memoryview) -> int:
        """Wait for the first bytes of a message, within the idle timeout; 0 at the end."""

    def receive_more(self, *buffers: memoryview) -> int:
        """Receive more of a message, which has as much left, within its timeout; 0 at the end.

        Fills the buffers, one after the other, where that costs no more than a part would.
        """

    def receive_some(self, buffer: memoryview) -> int:
        """Receive what there is of a message, within its timeout; 0 at the end."""

    def message_arrived(self) -> None:
        """The message is complete: its timeout ends."""

    def send(self, data: bytes) -> None:
        """Send all of `data`, within the write timeout."""

    def finish_sending(self, last: bytes = b"") -> None:
        """Send `last`, and tell the client with it that nothing more will come.

        A client that reads to the end knows that the connection is closed; it may still be sending.
        """

    def discard(self, buffer: memoryview) -> int:
        """Receive and discard bytes, over `buffer`; 0 at the end."""

    def stop_receiving(self) -> None:
        """Wake the receiving thread; replies can still be sent. Any thread may call this."""

    def cut_off(self) -> None:
        """Break the connection, whatever it is doing. Any thread may call this."""

    def close(self) -> None:
        """Close the connection, whatever state it is in."""


class PlainTransport:
    """Bytes as they are. The time limits are the kernel's own, which cost no call a message.

    Only a message that comes in pieces has its limit set and lifted again.

    Args:
        sock: the client's connection, blocking.
        timeouts: how long the client may take.

    Attributes:
        sock: as given.
        received_bytes: how many have been received, by calls that are over.
    """

    def __init__(self, sock: socket.socket, timeouts: Timeouts) -> None:
        self.sock = sock
        self.received_bytes = 0
        self._timeouts = timeouts
        self._idle_timeval = timeval(timeouts.idle_s) if timeouts.idle_s else _NO_TIMEOUT
        self._deadline_s: float | None = None

    def open(self) -> None:
        """Set the socket up.

        Replies leave at once (without TCP_NODELAY, an unframed reply waits for the client's
        delayed acknowledgement); a client that is gone without a word is noticed within two
        minutes.
        """
        sock = self.sock
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_IDLE_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _KEEPALIVE_INTERVAL_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _KEEPALIVE_PROBES)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval(self._timeouts.write_s))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, self._idle_timeval)

    def receive_first(self, buffer: memoryview) -> int:
        """Wait for the first bytes of a message, within the idle timeout; 0 at the end."""
        try:
            received = self.sock.recv_into(buffer)
        except BlockingIOError:
            raise TimeoutError(
                f"nothing came within --idle-timeout-s = {self._timeouts.idle_s}"
            ) from None
        self.received_bytes += received
        return received

    def receive_more(self, *buffers: memoryview) -> int:
        """Fill the buffers, within the message's timeout; less where that or the message ends.

        One system call for all that is missing: each one costs a switch of threads.
        """
        self._arm()
        try:
            received = self.sock.recvmsg_into(buffers, 0, socket.MSG_WAITALL)[0]
        except BlockingIOError:
            raise self._too_slow() from None
        self.received_bytes += received
        return received

    def receive_some(self, buffer: memoryview) -> int:
        """Receive what there is, at least a byte, within the message's timeout; 0 at the end."""
        self._arm()
        try:
            received = self.sock.recv_into(buffer)
        except BlockingIOError:
            raise self._too_slow() from None
        self.received_bytes += received
        return received

    discard = receive_some

    def message_arrived(self) -> None:
        """The message is complete: its timeout ends."""
        if self._deadline_s is not None:
            self._deadline_s = None
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, self._idle_timeval)

    def send(self, data: bytes) -> None:
        """Send all of `data`, within the write timeout."""
        try:
            sent = self.sock.send(data)
            if sent < len(data):
                # The kernel's limit, which holds for the whole of a call, has passed, or the
                # connection broke midway: then this raises what happened.
                sent += self.sock.send(data[sent:], socket.MSG_DONTWAIT)
        except BlockingIOError:
            sent = 0
        if sent < len(data):
            raise TimeoutError(
                f"it did not take its reply within --write-timeout-s = {self._timeouts.write_s}"
            )

    @contextmanager
    def sending_within(self) -> Iterator[Callable[[bytes], None]]:
        """Gives what `send` is, with one write timeout for all that is sent with it."""
        end_s = time.monotonic() + self._timeouts.write_s

        def send(data: bytes) -> None:
            left = timeval(max(0.0, end_s - time.monotonic()))
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, left)
            self.send(data)

        yield send
        write_s = timeval(self._timeouts.write_s)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, write_s)

    def send_at_once(self, data: bytes) -> None:
        """Send what the kernel takes without waiting."""
        try:
            self.sock.send(data, socket.MSG_DONTWAIT)
        except OSError:
            # It breaks or is full; no reader relies on these bytes.
            return

    def finish_sending(self, last: bytes = b"") -> None:
        """Send `last`, and tell the client with it that nothing more will come."""
        if last:
            # The kernel keeps the last segment back, until it can carry the end as well.
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
            self.send(last)
        self.sock.shutdown(socket.SHUT_WR)

    def stop_receiving(self) -> None:
        """Wake the receiving thread; replies can still be sent. Any thread may call this."""
        self._shut(socket.SHUT_RD)

    def cut_off(self) -> None:
        """Break the connection, whatever it is doing. Any thread may call this."""
        self._shut(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the socket."""
        self.sock.close()

    def _arm(self) -> None:
        """Start the message's time limit, or shorten it to what is left of it."""
        now_s = time.monotonic()
        if self._deadline_s is None:
            self._deadline_s = now_s + self._timeouts.message_s
        elif now_s >= self._deadline_s:
            raise self._too_slow()
        self.sock.setsockopt(
            socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval(self._deadline_s - now_s)
        )

    def _too_slow(self) -> TimeoutError:
        return TimeoutError(
            f"a message did not arrive within --message-timeout-s = {self._timeouts.message_s}"
        )

    def _shut(self, how: int) -> None:
        try:
            self.sock.shutdown(how)
        except OSError:
            # The client, or the connection's own thread, was faster.
            return


def timeval(seconds: float) -> bytes:
    """`seconds` as the kernel's timeval; never 0, which would mean no limit."""
    microseconds = max(1, round(seconds * 1_000_000))
    return _TIMEVAL.pack(*divmod(microseconds, 1_000_000))
