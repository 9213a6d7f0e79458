"""A message that arrives: the room that it takes of all connections', and how fast it comes."""

from __future__ import annotations

import math

from service.wire.buffer_budget import BufferBudget
from service.wire.peer import arrived_on
from service.wire.transport import Transport


class Arrival:
    """The message that arrives on a connection, one after the other, as a `BufferBudget` has it.

    Args:
        transport: of the connection.
        memory: where room is taken.

    Attributes:
        began_s: when it began, on the monotonic clock; infinite for one that has taken room before
            its first byte came.
        taken_bytes: how much room it has taken, beyond the buffer that every connection has.
        buffer_bytes: what its buffer counts for, likewise.
        whole_bytes: what it takes at least, as far as is known.
        dropped: why it is no longer waited for, or "".
    """

    def __init__(self, transport: Transport, memory: BufferBudget) -> None:
        self._transport = transport
        self._memory = memory
        self.began_s = math.inf
        self.taken_bytes = 0
        self.buffer_bytes = 0
        self.whole_bytes = 0
        self.dropped = ""
        self._strings_bytes = 0
        # How much had come on the connection before it.
        self._before_bytes = 0
        # When the message began whose rate is measured; since when it is, how much had come by
        # then, and the last rate.
        self._rated_began_s = math.inf
        self._rated_s, self._rated_bytes = math.inf, 0
        self._bytes_per_s = math.inf

    def take(self, count_bytes: int) -> None:
        """Take more room, whatever has come of it; ProtocolError where there is none."""
        self._memory.take(count_bytes, self.taken_bytes)
        self.taken_bytes += count_bytes

    def count(self, more_bytes: int, read_bytes: int) -> None:
        """Take the room of what is there of it, and more.

        Args:
            more_bytes: how much more.
            read_bytes: how much of it has been received.

        Raises:
            ProtocolError: there is none.
        """
        wanted_bytes = self._strings_bytes + self.buffer_bytes + more_bytes
        if wanted_bytes <= self.taken_bytes:
            return
        if not self.taken_bytes:
            self._before_bytes = self._transport.received_bytes - read_bytes
        self._memory.take(wanted_bytes - self.taken_bytes, self.taken_bytes, self.whole_bytes)
        self.taken_bytes = wanted_bytes
        self._memory.arriving[self] = None

    def count_buffer(self, size_bytes: int, read_bytes: int) -> None:
        """Its buffer counts for so much at least."""
        self.buffer_bytes = max(size_bytes, self.buffer_bytes)
        self.count(0, read_bytes)

    def count_string(self, more_bytes: int, read_bytes: int) -> None:
        """Of a string with memory of its own there is so much more."""
        self._strings_bytes += more_bytes
        self.count(0, read_bytes)

    def complete(self) -> None:
        """All of it has come, so that it is not dropped any more."""
        self._memory.arriving.pop(self, None)

    def give_back(self) -> None:
        """It counts no more."""
        if self.taken_bytes:
            self._memory.arriving.pop(self, None)
            self._memory.give_back(self.taken_bytes, self._strings_bytes)
            self.taken_bytes = self._strings_bytes = 0
            self.began_s = math.inf

    @property
    def arrived_bytes(self) -> int:
        """How much of it has come, also while a call to the kernel waits for more."""
        received_bytes = max(self._transport.received_bytes, arrived_on(self._transport.sock))
        return received_bytes - self._before_bytes

    def bytes_per_s(self, now_s: float, least_s: float) -> float:
        """How fast it comes, measured over `least_s` at least; infinite for one that began later.

        Args:
            now_s: on the monotonic clock.
            least_s: when it was asked before that, the answer is the one before.
        """
        if self._rated_began_s != self.began_s:
            self._rated_began_s = self._rated_s = self.began_s
            self._rated_bytes, self._bytes_per_s = 0, math.inf
        rated_s = now_s - self._rated_s
        if rated_s >= least_s:
            arrived_bytes = self.arrived_bytes
            self._bytes_per_s = (arrived_bytes - self._rated_bytes) / max(rated_s, 1e-6)
            self._rated_s, self._rated_bytes = now_s, arrived_bytes
        return self._bytes_per_s

    @property
    def is_dropped(self) -> bool:
        """Whether its room comes back."""
        return bool(self.dropped)

    def drop(self, reason: str) -> None:
        """Let the connection's thread refuse it, for that. Any thread may call this."""
        self.dropped = reason
        self._transport.stop_receiving()
