"""Reads Thrift messages from a client, framed or not, without trusting a length in them."""

from __future__ import annotations

import contextlib
from struct import Struct
from typing import NamedTuple

from service.foreign_protocols import foreign_protocol, unknown_protocol
from service.message_memory import MemoryFullError, MessageMemory
from service.scanner import LimitError, MessageLimits, MessageScanner, ProtocolError
from service.transport import Transport

FRAME_HEADER = Struct(">i")

# Version, type, length of an empty name, sequence id, and the stop byte of the arguments.
_LEAST_MESSAGE_BYTES = 13
_INITIAL_BUFFER_BYTES = 16 * 1024
_GROWTH_BYTES = 256 * 1024
RETAINED_BUFFER_BYTES = 1024 * 1024
"""A larger buffer is given back after the message that needed it."""


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

    def __init__(self, transport: Transport, limits: MessageLimits, memory: MessageMemory) -> None:
        self._transport = transport
        self._memory = memory
        # What the current message has taken of it, beyond the buffer that every connection has.
        self._taken_bytes = 0
        self._max_frame_bytes = limits.frame_bytes
        self._scanner = MessageScanner(limits)
        self._buffer = memoryview(bytearray(_INITIAL_BUFFER_BYTES))
        # The current message starts at _start; bytes have arrived up to _end.
        self._start = 0
        self._end = 0
        self._frame_bytes = 0
        self._stopping = False
        self.idle = True
        self.framed: bool | None = None

    @property
    def name(self) -> bytes:
        """The method of the message being read, or b"" where it has not arrived."""
        return self._scanner.name

    @property
    def sequence_id(self) -> int:
        """The number of the message being read, or 0 where it has not arrived."""
        return self._scanner.sequence_id

    def stop(self) -> None:
        """Let `read` return None as soon as no message is under way. Any thread may call this."""
        # This order, and its mirror in `read`, leaves no gap in which the reader blocks unseen.
        self._stopping = True
        if self.idle:
            self._transport.stop_receiving()

    def read(self) -> Message | None:
        """Wait for the next message.

        Returns:
            The message, or None if the client closed the connection between messages or `stop`
            was called.

        Raises:
            ProtocolError: what arrived is no acceptable message, or there is no room for it.
            EOFError: the client closed the connection in the middle of a message.
            TimeoutError: the message took too long to begin or to arrive.
            OSError: the connection broke.
        """
        self.framed = None
        self._frame_bytes = 0
        self._scanner.reset()
        self.release()
        try:
            if self._start == self._end and not self._receive_first():
                return None
            while (needed := self._examine()) > self._end - self._start:
                self._receive_more(needed)
        finally:
            self._transport.message_arrived()
        return self._take()

    def release(self) -> None:
        """Give the memory of the message back; nobody reads it any more."""
        if self._taken_bytes:
            self._memory.give_back(self._taken_bytes)
            self._taken_bytes = 0

    def _receive_first(self) -> bool:
        """Wait for the first bytes of a message; False where there will be none."""
        self._start = self._end = 0
        if len(self._buffer) > RETAINED_BUFFER_BYTES:
            self._buffer = memoryview(bytearray(_INITIAL_BUFFER_BYTES))
        self.idle = True
        if self._stopping:
            # What the client had sent by now is still read and answered.
            self._transport.stop_receiving()
        self._end = self._transport.receive_first(self._buffer)
        self.idle = self._end == 0
        return not self.idle

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
        self._frame_bytes = FRAME_HEADER.unpack(first)[0]
        if error := foreign_protocol(first):
            raise error
        if self._frame_bytes < _LEAST_MESSAGE_BYTES:
            raise unknown_protocol(first)
        self.framed = True
        if self._frame_bytes > self._max_frame_bytes:
            self._look_for_name()
            raise LimitError(
                f"a frame of {self._frame_bytes} bytes was announced, "
                f"--max-frame-bytes allows {self._max_frame_bytes}"
            )

    def _look_for_name(self) -> None:
        """Read the head of a frame that is refused, as far as it has come, for the answer."""
        with contextlib.suppress(ProtocolError):
            self._scanner.scan_header(self._buffer[self._start + FRAME_HEADER.size : self._end])

    def _scan_frame(self) -> None:
        """Check that the frame holds exactly one message."""
        body = self._start + FRAME_HEADER.size
        self._scanner.reset(self._frame_bytes)
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

    def _receive_more(self, needed: int) -> None:
        """Receive more of a message of at least `needed` bytes."""
        self._take_memory(needed)
        self._make_room(needed)
        stop = min(len(self._buffer), self._start + needed)
        received = self._transport.receive_more(self._buffer[self._end : stop])
        if received == 0:
            raise EOFError(
                f"the client closed the connection after {self._end - self._start} bytes "
                "of a message"
            )
        self._end += received

    def _take_memory(self, needed: int) -> None:
        """Count what the message needs so far, also where an earlier one has left the buffer."""
        arrived = self._end - self._start
        wanted = min(needed, max(2 * arrived, _GROWTH_BYTES)) - _INITIAL_BUFFER_BYTES
        if wanted <= self._taken_bytes:
            return
        try:
            self._memory.take(wanted - self._taken_bytes)
        except MemoryFullError:
            if self.framed:
                self._look_for_name()
            raise
        self._taken_bytes = wanted

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
