"""Reads Thrift messages from a client, framed or not, without trusting a length in them."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from struct import Struct
from typing import NamedTuple

from service.wire.buffer_budget import POOLED_BUFFER_BYTES, BufferBudget, MemoryFullError
from service.wire.large_strings import MARK_BYTES, LargeString, mark
from service.wire.peer import arrived_on
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
BUFFER_BYTES = 16 * 1024
"""What each connection has for good; what is larger goes back once its message is decoded."""
_GROWTH_BYTES = 256 * 1024
# Less room than that is not worth a system call.
_LEAST_ROOM_BYTES = 1024
# What follows a large string is often the next one, which is not to be copied.
_MOST_BEHIND_BYTES = 4096
# Strings of larger messages that have not come as a whole are received into memory of their own.
_LARGE_STRING_BYTES = 4096
# Of what lies in a buffer that has grown: there, in the decoder's buffer, and decoded.
_COPIES = 3
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
        self._memory = memory
        # What the current message has taken of it, beyond the buffer that every connection has.
        self._taken_bytes = 0
        self._max_frame_bytes = limits.frame_bytes
        self._scanner = MessageScanner(limits)
        self._own_buffer = memoryview(bytearray(BUFFER_BYTES))
        # This one, or a larger one for a while, and what that counts for; whether it is kept
        # for the next message.
        self._buffer = self._own_buffer
        self._buffer_bytes = 0
        self._keeps = False
        # The current message starts at _start; bytes have arrived up to _end.
        self._start = 0
        self._end = 0
        self._frame_bytes = 0
        # What the current message takes at least, as far as is known.
        self._whole_bytes = 0
        self._strings: list[bytes] = []
        # How much memory these have, and how much more of the message has arrived than is in the
        # buffer.
        self._strings_bytes = 0
        self._moved_bytes = 0
        # When it began, and how much had come on the connection by then.
        self._began_s = math.inf
        self._before_bytes = 0
        # Since when its rate is measured, how much had come by then, and the last rate.
        self._measured_s, self._measured_bytes = math.inf, 0
        self._bytes_per_s = math.inf
        self._stopping = False
        # Why the current message is no longer waited for.
        self._dropped = ""
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
        self._frame_bytes = self._whole_bytes = 0
        self._began_s = math.inf
        if self._buffer is not self._own_buffer and not self._keeps:
            # The message was not decoded.
            self._leave_buffer()
        self._scanner.reset()
        if self._strings_bytes:
            self._strings = []
        self._give_back()
        self._strings_bytes = self._moved_bytes = 0
        if self._buffer_bytes:
            self._count(0)
        try:
            if self._start == self._end and not self._receive_first():
                return None
            self._began_s = self._measured_s = time.monotonic()
            self._measured_bytes, self._bytes_per_s = 0, math.inf
            while (missing := self._missing()) > 0:
                self._receive(missing)
        finally:
            self._transport.message_arrived()
        return self._take()

    def skip_frame(self) -> bool:
        """Receive what is missing of a frame that is refused, over what has come of it.

        Returns:
            Whether that is done; False where no frame says how much it is.
        """
        if not self.framed or self._dropped:
            return False
        missing = FRAME_HEADER.size + self._frame_bytes - self._read_bytes
        try:
            while missing > 0:
                received = self._transport.receive_more(self._buffer[:missing])
                if received == 0:
                    raise EOFError("the client closed the connection within a frame")
                missing -= received
        finally:
            self._transport.message_arrived()
        return True

    def release(self) -> None:
        """Give all memory back, since no message is read any more."""
        self._start = self._end
        self._to_own_buffer()
        self._give_back()

    @property
    def began_s(self) -> float:
        """When the message began, on the monotonic clock; infinite while none has."""
        return self._began_s

    @property
    def taken_bytes(self) -> int:
        """How much room the message has taken."""
        return self._taken_bytes

    @property
    def arrived_bytes(self) -> int:
        """How much of the message has come, also while a call to the kernel waits for more."""
        arrived_bytes = arrived_on(self._transport.sock) - self._before_bytes
        return max(self._read_bytes, arrived_bytes)

    def bytes_per_s(self, now_s: float, least_s: float) -> float:
        """How fast it comes, measured over `least_s` at least; infinite for one that began later.

        Args:
            now_s: on the monotonic clock.
            least_s: when it was asked before that, the answer is the one before.
        """
        measured_s = now_s - self._measured_s
        if measured_s >= least_s:
            arrived_bytes = self.arrived_bytes
            self._bytes_per_s = (arrived_bytes - self._measured_bytes) / max(measured_s, 1e-6)
            self._measured_s, self._measured_bytes = now_s, arrived_bytes
        return self._bytes_per_s

    @property
    def _read_bytes(self) -> int:
        return self._end - self._start + self._moved_bytes

    @property
    def is_dropped(self) -> bool:
        """Whether its room comes back."""
        return bool(self._dropped)

    def drop(self, reason: str) -> None:
        """Let `read` refuse the message that is arriving, for that. Any thread may call this."""
        self._dropped = reason
        self._transport.stop_receiving()

    def take_memory(self, count_bytes: int) -> None:
        """Count more for the current message; ProtocolError where there is no room for it."""
        self._memory.take(count_bytes, self._taken_bytes)
        self._taken_bytes += count_bytes

    def _give_back(self) -> None:
        """The message counts no more."""
        if self._taken_bytes:
            self._memory.arriving.pop(self, None)
            self._memory.give_back(self._taken_bytes, self._strings_bytes)
            self._taken_bytes = 0

    def _receive_first(self) -> bool:
        """Wait for the first bytes of a message; False where there will be none."""
        self._start = self._end = 0
        self.idle = True
        if self._stopping:
            # What the client had sent by now is still read and answered.
            self._transport.stop_receiving()
        self._end = self._transport.receive_first(self._buffer)
        self.idle = self._end == 0
        return not self.idle

    def _missing(self) -> int:
        """How many bytes of the current message are to come, as far as is known."""
        start, end = self._start, self._end
        if self.framed is None:
            if end - start < FRAME_HEADER.size:
                return FRAME_HEADER.size - (end - start)
            self._recognise_style()
        scanner = self._scanner
        if not self.framed:
            return scanner.scan(self._buffer[start:end]) - (end - start)
        frame_bytes = self._frame_bytes
        missing = FRAME_HEADER.size + frame_bytes - (end - start + self._moved_bytes)
        if missing > 0 and frame_bytes < POOLED_BUFFER_BYTES:
            # It is walked once it is there as a whole.
            return missing
        body = start + FRAME_HEADER.size
        needed = scanner.scan(self._buffer[body : min(end, end + missing)])
        if scanner.end and needed + self._moved_bytes != frame_bytes:
            raise ProtocolError(
                f"the message in a frame of {frame_bytes} bytes has "
                f"{needed + self._moved_bytes} bytes"
            )
        return missing

    def _recognise_style(self) -> None:
        """Tell framed from unframed by the first four bytes."""
        first = bytes(self._buffer[self._start : self._start + FRAME_HEADER.size])
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
            self._look_for_name()
            raise LimitError(
                f"a frame of {self._frame_bytes} bytes was announced, "
                f"--max-frame-bytes allows {self._max_frame_bytes}"
            )
        self._whole_bytes = self._frame_bytes

    def _look_for_name(self) -> None:
        """Read the head of a frame that is refused, as far as it has come, for the answer."""
        if self._scanner.name:
            return
        with contextlib.suppress(ProtocolError):
            self._scanner.scan_header(self._buffer[self._start + FRAME_HEADER.size : self._end])

    def _take(self) -> Message:
        scanner = self._scanner
        if scanner.end > BUFFER_BYTES and not self._keeps:
            self._count_buffer(scanner.end - BUFFER_BYTES)
        if scanner.values > _FREE_VALUES:
            self._count(scanner.values * _VALUE_BYTES)
        if self._taken_bytes:
            self._memory.arriving.pop(self, None)
        start = self._start + (FRAME_HEADER.size if self.framed else 0)
        self._start = start + scanner.end
        return Message(
            scanner.name,
            scanner.message_type,
            scanner.sequence_id,
            self._buffer[start + scanner.body_start : self._start],
            bool(self.framed),
            self._strings,
            self._leave_buffer,
        )

    def _receive(self, missing: int) -> None:
        """Receive more of a message of which at least `missing` bytes are to come."""
        whole_bytes = self._end - self._start + missing
        if whole_bytes <= POOLED_BUFFER_BYTES:
            self._make_room(missing, whole_bytes)
        else:
            string = self._scanner.open_string
            if string is not None and string[1] >= _LARGE_STRING_BYTES:
                self._receive_string(*string, missing)
                return
            self._make_room(min(missing, _LEAST_ROOM_BYTES), whole_bytes)
        if self.framed:
            stop = min(len(self._buffer), self._end + missing)
            self._end += self._some(self._transport.receive_more(self._buffer[self._end : stop]))
        else:
            # As much as there is, since how much is to come is known value by value.
            self._end += self._some(self._transport.receive_some(self._buffer[self._end :]))

    def _receive_string(self, start: int, size_bytes: int, missing: int) -> None:
        """Receive the string in which the bytes end, and what is sure to come behind it.

        Args:
            start: where it starts in the message, as the scanner has it.
            size_bytes: its size.
            missing: how many bytes of the message are to come at least.
        """
        start += FRAME_HEADER.size if self.framed else 0
        arrived = self._end - self._start - start
        behind = min(missing - (size_bytes - arrived), _MOST_BEHIND_BYTES)
        self._whole_bytes = max(self._whole_bytes, size_bytes)
        # It counts for what has come of it, and a little ahead.
        counted_bytes = min(size_bytes, max(2 * arrived, _GROWTH_BYTES))
        self._take_string_memory(counted_bytes)
        try:
            string = LargeString(size_bytes)
        except MemoryError:
            raise MemoryFullError(f"no memory for a string of {size_bytes} bytes") from None
        string.view[:arrived] = self._buffer[self._start + start : self._end]
        self._end -= arrived
        self._moved_bytes += arrived - MARK_BYTES
        self._make_room(MARK_BYTES, self._end - self._start + MARK_BYTES)
        _STRING_HEADER.pack_into(self._buffer, self._end - _STRING_HEADER.size, MARK_BYTES)
        self._buffer[self._end : self._end + MARK_BYTES] = mark(len(self._strings))
        self._end += MARK_BYTES
        while arrived < size_bytes:
            if arrived == counted_bytes:
                more_bytes = min(size_bytes - counted_bytes, counted_bytes)
                self._take_string_memory(more_bytes)
                counted_bytes += more_bytes
            views = [string.view[arrived:counted_bytes]]
            if counted_bytes == size_bytes:
                views.append(self._buffer[self._end : self._end + behind])
            received = self._some(self._transport.receive_more(*views))
            of_string = min(received, counted_bytes - arrived)
            arrived += of_string
            self._moved_bytes += of_string
            self._end += received - of_string
            # Of memory that others look at, a copy would be made in the end.
            del views
        self._scanner.shorten(size_bytes - MARK_BYTES)
        self._strings.append(string.whole())

    def _some(self, received: int) -> int:
        if self._dropped:
            if self.framed:
                self._look_for_name()
            raise MemoryFullError(self._dropped)
        if received == 0:
            raise EOFError(
                f"the client closed the connection after {self._read_bytes} bytes of a message"
            )
        return received

    def _take_string_memory(self, more_bytes: int) -> None:
        self._strings_bytes += more_bytes
        self._count(0)

    def _count(self, more_bytes: int) -> None:
        """Count what the message takes so far, and `more_bytes`."""
        wanted = self._strings_bytes + self._buffer_bytes + more_bytes
        if wanted <= self._taken_bytes:
            return
        if not self._taken_bytes:
            self._before_bytes = self._transport.received_bytes - self._read_bytes
        try:
            self._memory.take(wanted - self._taken_bytes, self._taken_bytes, self._whole_bytes)
        except ProtocolError:
            if self.framed:
                self._look_for_name()
            raise
        self._taken_bytes = wanted
        self._memory.arriving[self] = None

    def _make_room(self, wanted: int, whole_bytes: int) -> None:
        """Leave space behind what has arrived; memory grows with the bytes, not with lengths.

        Args:
            wanted: how many bytes at least.
            whole_bytes: of the message in the buffer, as far as is known.
        """
        if self._buffer is not self._own_buffer:
            self._count_buffer(whole_bytes - BUFFER_BYTES)
        if self._end + wanted <= len(self._buffer):
            return
        arrived = self._end - self._start
        if arrived + wanted <= len(self._buffer):
            self._move_to(self._buffer)
        elif whole_bytes <= POOLED_BUFFER_BYTES:
            self._count_buffer(whole_bytes - BUFFER_BYTES)
            self._move_to(self._memory.buffer())
        else:
            size_bytes = max(2 * arrived, _GROWTH_BYTES)
            self._count_buffer(_COPIES * size_bytes)
            self._move_to(memoryview(bytearray(size_bytes)))

    def _count_buffer(self, size_bytes: int) -> None:
        self._buffer_bytes = max(size_bytes, self._buffer_bytes)
        self._count(0)

    def _leave_buffer(self) -> None:
        """The message in the buffer is decoded: go back to a small one, or keep this one.

        Nothing of the next message is lost: where more of it has come than fits, the buffer stays
        and counts for that one.
        """
        if self._buffer is self._own_buffer:
            return
        if self._scanner.end > BUFFER_BYTES and len(self._buffer) == POOLED_BUFFER_BYTES:
            # Its connection will get another one like this, which then comes with one system call.
            if self._keeps:
                return
            self._keeps = self._memory.keep_buffer()
            if self._keeps:
                self._buffer_bytes = 0
                return
        self._to_own_buffer()

    def _to_own_buffer(self) -> None:
        if self._buffer is not self._own_buffer and self._end - self._start <= BUFFER_BYTES:
            self._move_to(self._own_buffer)
            self._buffer_bytes = 0

    def _move_to(self, buffer: memoryview) -> None:
        arrived = self._end - self._start
        buffer[:arrived] = self._buffer[self._start : self._end]
        left, self._buffer = self._buffer, buffer
        self._start, self._end = 0, arrived
        if left is self._own_buffer or left is buffer:
            return
        self._memory.free_buffer(left)
        if self._keeps:
            self._keeps = False
            self._memory.leave_buffer()
