"""Reads Thrift messages from a socket, framed or not, without trusting a length in them."""

from __future__ import annotations

import socket
import time
from struct import Struct
from typing import NamedTuple

from service.scanner import MessageScanner, ProtocolError

FRAME_HEADER = Struct(">i")
_TIMEVAL = Struct("@ll")
_NO_TIMEOUT = _TIMEVAL.pack(0, 0)

# Version, type, length of an empty name, sequence id, and the stop byte of the arguments.
_LEAST_MESSAGE_BYTES = 13
_INITIAL_BUFFER_BYTES = 16 * 1024
_GROWTH_BYTES = 256 * 1024
RETAINED_BUFFER_BYTES = 1024 * 1024
"""A larger buffer is given back after the message that needed it."""

_HTTP_STARTS = (b"GET ", b"POST", b"HEAD", b"PUT ", b"DELE", b"OPTI", b"PATC", b"PRI ", b"CONN")


class Message(NamedTuple):
    """One call as it arrived.

    Attributes:
        name: the method's name, as bytes.
        message_type: Thrift's message type; 1 for a call.
        sequence_id: the client's number for the call.
        body: the arguments' struct; valid until the next read.
        framed: whether the client frames its messages.
    """

    name: bytes
    message_type: int
    sequence_id: int
    body: memoryview
    framed: bool


class MessageReader:
    """Reads one connection's messages in turn.

    Attributes:
        idle: True while nothing of a next message has arrived.
        framed: the style of the message being read; None until its first bytes tell.
    """

    def __init__(self, sock: socket.socket, max_frame_bytes: int, message_timeout_s: float) -> None:
        self._socket = sock
        self._max_frame_bytes = max_frame_bytes
        self._message_timeout_s = message_timeout_s
        self._timeval = timeval(message_timeout_s)
        self._deadline_s: float | None = None
        self._scanner = MessageScanner()
        self._buffer = memoryview(bytearray(_INITIAL_BUFFER_BYTES))
        # The current message starts at _start; bytes have arrived up to _end.
        self._start = 0
        self._end = 0
        self._frame_bytes = 0
        self._stopping = False
        self.idle = True
        self.framed: bool | None = None

    @property
    def sequence_id(self) -> int:
        """The number of the message being read, or 0 where it has not arrived."""
        return self._scanner.sequence_id

    def stop(self) -> None:
        """Let `read` return None as soon as no message is under way. Any thread may call this."""
        # This order, and its mirror in `read`, leaves no gap in which the reader blocks unseen.
        self._stopping = True
        if self.idle:
            stop_receiving(self._socket)

    def read(self) -> Message | None:
        """Wait for the next message.

        Returns:
            The message, or None if the client closed the connection between messages or `stop`
            was called.

        Raises:
            ProtocolError: what arrived is no acceptable message.
            EOFError: the client closed the connection in the middle of a message.
            TimeoutError: the message took longer than `message_timeout_s` to arrive.
            OSError: the connection broke.
        """
        self.framed = None
        self._frame_bytes = 0
        self._scanner.reset(self._max_frame_bytes, "--max-frame-bytes")
        if self._start == self._end:
            self._start = self._end = 0
            if len(self._buffer) > RETAINED_BUFFER_BYTES:
                self._buffer = memoryview(bytearray(_INITIAL_BUFFER_BYTES))
            self.idle = True
            if self._stopping:
                # What the client had sent by now is still read and answered.
                stop_receiving(self._socket)
            self._end = self._socket.recv_into(self._buffer)
            if self._end == 0:
                return None
            self.idle = False
        try:
            while (needed := self._examine()) > self._end - self._start:
                self._receive(needed)
        finally:
            self._disarm()
        return self._take()

    def _examine(self) -> int:
        """How many bytes the current message has, frame header included, as far as is known."""
        arrived = self._end - self._start
        if self.framed is None:
            if arrived < FRAME_HEADER.size:
                return FRAME_HEADER.size
            self._recognise_style()
        if not self.framed:
            return self._scanner.scan(self._buffer[self._start : self._end])
        needed = FRAME_HEADER.size + self._frame_bytes
        if arrived >= needed:
            self._scan_frame()
        return needed

    def _recognise_style(self) -> None:
        """Tell framed from unframed by the first four bytes."""
        first = bytes(self._buffer[self._start : self._start + FRAME_HEADER.size])
        if first[:2] == b"\x80\x01":
            self.framed = False
            return
        if hint := _foreign_protocol(first):
            raise ProtocolError(
                f"the connection starts with {first!r}: {hint}; "
                "this port speaks Thrift's binary protocol"
            )
        self._frame_bytes = FRAME_HEADER.unpack(first)[0]
        if self._frame_bytes < _LEAST_MESSAGE_BYTES:
            raise ProtocolError(
                f"the connection starts with {first!r}, neither a frame's length nor 0x8001; "
                "this port speaks Thrift's strict binary protocol, framed or not"
            )
        self.framed = True
        if self._frame_bytes > self._max_frame_bytes:
            raise ProtocolError(
                f"a frame of {self._frame_bytes} bytes was announced, "
                f"--max-frame-bytes allows {self._max_frame_bytes}"
            )

    def _scan_frame(self) -> None:
        """Check that the frame holds exactly one message."""
        body = self._start + FRAME_HEADER.size
        self._scanner.reset(self._frame_bytes, "its frame")
        needed = self._scanner.scan(self._buffer[body : body + self._frame_bytes])
        if needed != self._frame_bytes:
            raise ProtocolError(
                f"the message in a frame of {self._frame_bytes} bytes has {needed} bytes"
            )

    def _take(self) -> Message:
        scanner = self._scanner
        start = self._start + (FRAME_HEADER.size if self.framed else 0)
        self._start = start + scanner.end
        return Message(
            scanner.name,
            scanner.message_type,
            scanner.sequence_id,
            self._buffer[start + scanner.body_start : self._start],
            bool(self.framed),
        )

    def _receive(self, needed: int) -> None:
        """Receive more of a message of at least `needed` bytes."""
        self._arm()
        self._make_room(needed)
        stop = min(len(self._buffer), self._start + needed)
        try:
            # One system call for all that is missing: each one costs a switch of threads.
            received = self._socket.recv_into(self._buffer[self._end : stop], 0, socket.MSG_WAITALL)
        except BlockingIOError:
            raise self._too_slow() from None
        if received == 0:
            raise EOFError(
                f"the client closed the connection after {self._end - self._start} bytes "
                "of a message"
            )
        self._end += received

    def _make_room(self, needed: int) -> None:
        """Leave space behind what has arrived; memory grows with the bytes, not with lengths."""
        if self._start + needed <= len(self._buffer):
            return
        arrived = self._end - self._start
        if self._start > 0:
            self._buffer[:arrived] = self._buffer[self._start : self._end]
            self._start, self._end = 0, arrived
        if arrived == len(self._buffer):
            larger = memoryview(bytearray(min(needed, max(2 * arrived, _GROWTH_BYTES))))
            larger[:arrived] = self._buffer
            self._buffer = larger

    def _arm(self) -> None:
        """Start the message's time limit, or raise TimeoutError if it has passed.

        It is the kernel's own, which costs no call per receive; this check is for those who send
        a little at a time.
        """
        if self._deadline_s is None:
            self._deadline_s = time.monotonic() + self._message_timeout_s
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, self._timeval)
        elif time.monotonic() > self._deadline_s:
            raise self._too_slow()

    def _too_slow(self) -> TimeoutError:
        return TimeoutError(
            f"a message did not arrive within --message-timeout-s = {self._message_timeout_s}"
        )

    def _disarm(self) -> None:
        if self._deadline_s is not None:
            self._deadline_s = None
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _NO_TIMEOUT)


def timeval(seconds: float) -> bytes:
    """`seconds` as the kernel's timeval; never 0, which would mean no limit."""
    microseconds = max(1, round(seconds * 1_000_000))
    return _TIMEVAL.pack(*divmod(microseconds, 1_000_000))


def stop_receiving(sock: socket.socket) -> None:
    """Wake whoever waits for bytes from `sock`; replies can still be sent."""
    try:
        sock.shutdown(socket.SHUT_RD)
    except OSError:
        # The client, or the connection's own thread, was faster.
        return


def _foreign_protocol(first: bytes) -> str:
    """What another protocol's first bytes look like, or ""."""
    if first in _HTTP_STARTS:
        return "an HTTP request"
    if first[:2] == b"\x16\x03":
        return "a TLS handshake"
    if first[:1] == b"\x82":
        return "Thrift's compact protocol"
    return ""
