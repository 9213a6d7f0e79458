"""What the engine process tells a worker, in a slot of their shared memory that holds no items."""

from __future__ import annotations

import mmap
import struct
import zlib
from typing import NamedTuple

# The length of the status, which follows.
_LENGTH = struct.Struct("<H")
_MOST_STATUS_BYTES = 2048
# Behind the status: how many heartbeats there were, and whether an instance loads.
_PULSE = struct.Struct("<Q?")
_PULSE_OFFSET = _LENGTH.size + _MOST_STATUS_BYTES
# In the next page: checksum and length of what the process has counted, and then that.
_COUNTS_HEADER = struct.Struct("<IQ")
_COUNTS_OFFSET = mmap.PAGESIZE


class Pulse(NamedTuple):
    """A sign of life of the engine process.

    Attributes:
        beats: how many heartbeats there were.
        is_loading: whether an instance loads, so that none may come.
    """

    beats: int
    is_loading: bool


class StatusSlot:
    """One end writes, the other one reads, and neither waits for the other.

    Args:
        memory: that of all slots.
        start: where this one begins, at a page.
        size_bytes: its length.
    """

    def __init__(self, memory: memoryview, start: int, size_bytes: int) -> None:
        self._memory = memory
        self._start = start
        self._end = start + size_bytes

    def put_status(self, text: str) -> None:
        """Leave a short text; of a long one the beginning."""
        data = text.encode()[:_MOST_STATUS_BYTES]
        start = self._start + _LENGTH.size
        self._memory[start : start + len(data)] = data
        _LENGTH.pack_into(self._memory, self._start, len(data))

    def status(self) -> str:
        """The text. While it is being replaced it may be a mixture of both."""
        (length,) = _LENGTH.unpack_from(self._memory, self._start)
        start = self._start + _LENGTH.size
        return str(self._memory[start : start + length], "utf-8", "replace")

    def put_pulse(self, pulse: Pulse) -> None:
        """Leave a sign of life."""
        _PULSE.pack_into(self._memory, self._start + _PULSE_OFFSET, *pulse)

    def pulse(self) -> Pulse:
        """The last sign of life."""
        return Pulse(*_PULSE.unpack_from(self._memory, self._start + _PULSE_OFFSET))

    def put_counts(self, data: bytes) -> None:
        """Leave what the process has counted; nothing where it does not fit."""
        start = self._start + _COUNTS_OFFSET
        end = start + _COUNTS_HEADER.size + len(data)
        if end <= self._end:
            _COUNTS_HEADER.pack_into(self._memory, start, zlib.crc32(data), len(data))
            self._memory[start + _COUNTS_HEADER.size : end] = data

    def counts(self) -> bytes:
        """What was left there; none before that, and while it is being replaced."""
        start = self._start + _COUNTS_OFFSET
        if start + _COUNTS_HEADER.size > self._end:
            return b""
        checksum, length = _COUNTS_HEADER.unpack_from(self._memory, start)
        start += _COUNTS_HEADER.size
        data = bytes(self._memory[start : min(start + length, self._end)])
        return data if zlib.crc32(data) == checksum else b""
