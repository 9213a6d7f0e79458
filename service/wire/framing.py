"""Reads Thrift messages from a client, framed or not, without trusting a length in them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from struct import Struct
from typing import NamedTuple

from service.wire.arrival import Arrival
from service.wire.buffer_budget import POOLED_BUFFER_BYTES, BufferBudget, MemoryFullError
from service.wire.large_strings import MARK_BYTES, LargeString, mark
from service.wire.message_buffer import BUFFER_BYTES, GROWTH_BYTES, MessageBuffer
from service.wire.protocol_detection import (
    SMALLEST_FOREIGN_LENGTH,
    foreign_protocol,
    unknown_protocol,
)
from service.wire.scanner import LimitError, MessageLimits, MessageScanner, ProtocolError
from service.wire.transport import Transport

FRAME_HEADER = Struct(">i")
_STRING_HEADER = Struct(">i")

# Version, type, length of an empty name, sequence id, and the stop byte of the arguments.
_LEAST_MESSAGE_BYTES = 13
# Less room than that is not worth a system call.
_LEAST_ROOM_BYTES = 1024
# What follows a large string is often the next one, which is not to be copied.
_MOST_BEHIND_BYTES = 4096
# Strings of larger messages that have not come as a whole are received into memory of their own.
_LARGE_STRING_BYTES = 4096
# thriftpy2's struct for an empty one on the wire. As many values as an ordinary call has are free.
_VALUE_BYTES = 400
_FREE_VALUES = 64


class Message(NamedTuple):
    """One call as it arrived.

    Attributes:
        name: the method's name, as bytes.
        message_type: Thrift's message type; 1 for a call.
        sequence_id: the client's number for the call.
        body: the arguments' struct; valid until `decoded` is called.
        framed: whether the client frames its messages.
        strings: the large strings, in whose place `body` has marks.
        decoded: gives back the memory in which the body lies.
    """

    name: bytes
    message_type: int
    sequence_id: int
    body: memoryview
    framed: bool
    strings: list[bytes]
    decoded: Callable[[], None]


class MessageReader:
    """Reads one connection's messages in turn.

    Attributes:
        idle: True while nothing of a next message has arrived.
        framed: the style of the message being read; None until its first bytes tell.
    """

    def __init__(self, transport: Transport, limits: MessageLimits, memory: BufferBudget) -> None:
        self._transport = transport
        self._arrival = Arrival(transport, memory)
        self._buffer = MessageBuffer(self._arrival, memory)
        self._max_frame_bytes = limits.frame_bytes
        self._scanner = MessageScanner(limits)
        self._frame_bytes = 0
        self._strings: list[bytes] = []
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
        buffer, arrival = self._buffer, self._arrival
        self.framed = None
        self._frame_bytes = arrival.whole_bytes = 0
        if buffer.view is not buffer.own and not buffer.keeps:
            # The message was not decoded.
            self._leave_buffer()
        self._scanner.reset()
        if self._strings:
            self._strings = []
        arrival.give_back()
        buffer.moved_bytes = 0
        if arrival.buffer_bytes:
            arrival.count(0, buffer.read_bytes)
        try:
            if buffer.start == buffer.end and not self._receive_first():
                return None
            arrival.began_s = time.monotonic()
            while (missing := self._missing()) > 0:
                self._receive(missing)
        except (LimitError, MemoryFullError):
            self._look_for_name()
            raise
        finally:
            self._transport.message_arrived()
        return self._take()

    def skip_frame(self) -> bool:
        """Receive what is missing of a frame that is refused, over what has come of it.

        Returns:
            Whether that is done; False where no frame says how much it is.
        """
        if not self.framed or self._arrival.dropped:
            return False
        missing = FRAME_HEADER.size + self._frame_bytes - self._buffer.read_bytes
        try:
            while missing > 0:
                received = self._transport.receive_more(self._buffer.view[:missing])
                if received == 0:
                    raise EOFError("the client closed the connection within a frame")
                missing -= received
        finally:
            self._transport.message_arrived()
        return True

    def release(self) -> None:
        """Give all memory back, since no message is read any more."""
        self._buffer.start = self._buffer.end
        self._buffer.to_own()
        self._arrival.give_back()

    def take_memory(self, count_bytes: int) -> None:
        """Count more for the current message; ProtocolError where there is no room for it."""
        self._arrival.take(count_bytes)

    def _receive_first(self) -> bool:
        """Wait for the first bytes of a message; False where there will be none."""
        self._buffer.start = self._buffer.end = 0
        self.idle = True
        if self._stopping:
            # What the client had sent by now is still read and answered.
            self._transport.stop_receiving()
        self._buffer.end = self._transport.receive_first(self._buffer.view)
        self.idle = self._buffer.end == 0
        return not self.idle

    def _missing(self) -> int:
        """How many bytes of the current message are to come, as far as is known."""
        start, end = self._buffer.start, self._buffer.end
        if self.framed is None:
            if end - start < FRAME_HEADER.size:
                return FRAME_HEADER.size - (end - start)
            self._recognise_style(start)
        scanner = self._scanner
        if not self.framed:
            return scanner.scan(self._buffer.view[start:end]) - (end - start)
        frame_bytes = self._frame_bytes
        missing = FRAME_HEADER.size + frame_bytes - (end - start + self._buffer.moved_bytes)
        if missing > 0 and frame_bytes < POOLED_BUFFER_BYTES:
            # It is walked once it is there as a whole.
            return missing
        body = start + FRAME_HEADER.size
        needed = scanner.scan(self._buffer.view[body : min(end, end + missing)])
        if scanner.end and needed + self._buffer.moved_bytes != frame_bytes:
            raise ProtocolError(
                f"the message in a frame of {frame_bytes} bytes has "
                f"{needed + self._buffer.moved_bytes} bytes"
            )
        return missing

    def _recognise_style(self, start: int) -> None:
        """Tell framed from unframed by the first four bytes of what starts there."""
        first = bytes(self._buffer.view[start : start + FRAME_HEADER.size])
        if first[:2] == b"\x80\x01":
            self.framed = False
            return
        self._frame_bytes = FRAME_HEADER.unpack(first)[0]
        if not _LEAST_MESSAGE_BYTES <= self._frame_bytes < SMALLEST_FOREIGN_LENGTH:
            if error := foreign_protocol(first):
                raise error
            if self._frame_bytes < _LEAST_MESSAGE_BYTES:
                raise unknown_protocol(first)
        self.framed = True
        self._scanner.reset(self._frame_bytes)
        if self._frame_bytes > self._max_frame_bytes:
            raise LimitError(
                f"a frame of {self._frame_bytes} bytes was announced, "
                f"--max-frame-bytes allows {self._max_frame_bytes}"
            )
        self._arrival.whole_bytes = self._frame_bytes

    def _look_for_name(self) -> None:
        """Read the head of a frame that is refused, as far as it has come, for the answer."""
        if not self.framed or self._scanner.name:
            return
        body = self._buffer.start + FRAME_HEADER.size
        with contextlib.suppress(ProtocolError):
            self._scanner.scan_header(self._buffer.view[body : self._buffer.end])

    def _take(self) -> Message:
        scanner, buffer = self._scanner, self._buffer
        if scanner.end > BUFFER_BYTES and not buffer.keeps:
            self._arrival.count_buffer(scanner.end - BUFFER_BYTES, buffer.read_bytes)
        if scanner.values > _FREE_VALUES:
            self._arrival.count(scanner.values * _VALUE_BYTES, buffer.read_bytes)
        if self._arrival.taken_bytes:
            self._arrival.complete()
        start = buffer.start + (FRAME_HEADER.size if self.framed else 0)
        buffer.start = start + scanner.end
        return Message(
            scanner.name,
            scanner.message_type,
            scanner.sequence_id,
            buffer.view[start + scanner.body_start : buffer.start],
            bool(self.framed),
            self._strings,
            self._leave_buffer,
        )

    def _leave_buffer(self) -> None:
        """The message in the buffer is decoded."""
        if self._buffer.view is not self._buffer.own:
            self._buffer.leave(is_needed_often=self._scanner.end > BUFFER_BYTES)

    def _receive(self, missing: int) -> None:
        """Receive more of a message of which at least `missing` bytes are to come."""
        buffer = self._buffer
        whole_bytes = buffer.end - buffer.start + missing
        if whole_bytes <= POOLED_BUFFER_BYTES:
            buffer.make_room(missing, whole_bytes)
        else:
            string = self._scanner.open_string
            if string is not None and string[1] >= _LARGE_STRING_BYTES:
                self._receive_string(*string, missing)
                return
            buffer.make_room(min(missing, _LEAST_ROOM_BYTES), whole_bytes)
        if self.framed:
            stop = min(len(buffer.view), buffer.end + missing)
            buffer.end += self._some(self._transport.receive_more(buffer.view[buffer.end : stop]))
        else:
            # As much as there is, since how much is to come is known value by value.
            buffer.end += self._some(self._transport.receive_some(buffer.view[buffer.end :]))

    def _receive_string(self, start: int, size_bytes: int, missing: int) -> None:
        """Receive the string in which the bytes end, and what is sure to come behind it.

        Args:
            start: where it starts in the message, as the scanner has it.
            size_bytes: its size.
            missing: how many bytes of the message are to come at least.
        """
        buffer, arrival = self._buffer, self._arrival
        start += FRAME_HEADER.size if self.framed else 0
        arrived = buffer.end - buffer.start - start
        behind = min(missing - (size_bytes - arrived), _MOST_BEHIND_BYTES)
        arrival.whole_bytes = max(arrival.whole_bytes, size_bytes)
        # It counts for what has come of it, and a little ahead.
        counted_bytes = min(size_bytes, max(2 * arrived, GROWTH_BYTES))
        arrival.count_string(counted_bytes, buffer.read_bytes)
        try:
            string = LargeString(size_bytes)
        except MemoryError:
            raise MemoryFullError(f"no memory for a string of {size_bytes} bytes") from None
        string.view[:arrived] = buffer.view[buffer.start + start : buffer.end]
        buffer.end -= arrived
        buffer.moved_bytes += arrived - MARK_BYTES
        buffer.make_room(MARK_BYTES, buffer.end - buffer.start + MARK_BYTES)
        _STRING_HEADER.pack_into(buffer.view, buffer.end - _STRING_HEADER.size, MARK_BYTES)
        buffer.view[buffer.end : buffer.end + MARK_BYTES] = mark(len(self._strings))
        buffer.end += MARK_BYTES
        while arrived < size_bytes:
            if arrived == counted_bytes:
                more_bytes = min(size_bytes - counted_bytes, counted_bytes)
                arrival.count_string(more_bytes, buffer.read_bytes)
                counted_bytes += more_bytes
            views = [string.view[arrived:counted_bytes]]
            if counted_bytes == size_bytes:
                views.append(buffer.view[buffer.end : buffer.end + behind])
            received = self._some(self._transport.receive_more(*views))
            of_string = min(received, counted_bytes - arrived)
            arrived += of_string
            buffer.moved_bytes += of_string
            buffer.end += received - of_string
            # Of memory that others look at, a copy would be made in the end.
            del views
        self._scanner.shorten(size_bytes - MARK_BYTES)
        self._strings.append(string.whole())

    def _some(self, received: int) -> int:
        if self._arrival.dropped:
            raise MemoryFullError(self._arrival.dropped)
        if received == 0:
            raise EOFError(
                f"the client closed the connection after {self._buffer.read_bytes} bytes of a "
                "message"
            )
        return received
