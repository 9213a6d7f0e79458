"""Where a message lies while it arrives: memory that grows with its bytes, not with lengths."""

from __future__ import annotations

from service.wire.arrival import Arrival
from service.wire.buffer_budget import POOLED_BUFFER_BYTES, BufferBudget

BUFFER_BYTES = 16 * 1024
"""What each connection has for good; what is larger goes back once its message is decoded."""
GROWTH_BYTES = 256 * 1024
# Of what lies in a buffer that has grown: there, in the decoder's buffer, and decoded.
_COPIES = 3


class MessageBuffer:
    """The buffer of a connection: its own, or a larger one for a while.

    Args:
        arrival: where the larger one counts.
        memory: where that comes from.

    Attributes:
        own: the connection's own.
        view: the one in use.
        start: where the current message starts in it.
        end: up to where bytes have arrived.
        moved_bytes: how much more of the message has arrived than is in the buffer.
        keeps: whether a larger one is kept for the next message.
    """

    def __init__(self, arrival: Arrival, memory: BufferBudget) -> None:
        self._arrival = arrival
        self._memory = memory
        self.own = memoryview(bytearray(BUFFER_BYTES))
        self.view = self.own
        self.start = self.end = 0
        self.moved_bytes = 0
        self.keeps = False

    @property
    def read_bytes(self) -> int:
        """How much of the message has been received."""
        return self.end - self.start + self.moved_bytes

    def make_room(self, wanted: int, whole_bytes: int) -> None:
        """Leave space behind what has arrived.

        Args:
            wanted: how many bytes at least.
            whole_bytes: of the message in the buffer, as far as is known.

        Raises:
            ProtocolError: there is no room for a larger buffer.
        """
        if self.view is not self.own:
            self._arrival.count_buffer(whole_bytes - BUFFER_BYTES, self.read_bytes)
        if self.end + wanted <= len(self.view):
            return
        arrived = self.end - self.start
        if arrived + wanted <= len(self.view):
            self._move_to(self.view)
        elif whole_bytes <= POOLED_BUFFER_BYTES:
            self._arrival.count_buffer(whole_bytes - BUFFER_BYTES, self.read_bytes)
            self._move_to(self._memory.buffer())
        else:
            size_bytes = max(2 * arrived, GROWTH_BYTES)
            self._arrival.count_buffer(_COPIES * size_bytes, self.read_bytes)
            self._move_to(memoryview(bytearray(size_bytes)))

    def leave(self, *, is_needed_often: bool) -> None:
        """The message in a larger buffer is decoded: go back to the own one, or keep this one.

        Nothing of the next message is lost: where more of it has come than fits, the buffer stays
        and counts for that one.

        Args:
            is_needed_often: whether the message would not have fitted into the own one.
        """
        if is_needed_often and self.keeps:
            return
        # Its connection will get another one like this, which then comes with one system call.
        is_pooled = len(self.view) == POOLED_BUFFER_BYTES
        if is_needed_often and is_pooled and self._memory.keep_buffer():
            self.keeps = True
            self._arrival.buffer_bytes = 0
            return
        self.to_own()

    def to_own(self) -> None:
        """Go back to the own one, if what has arrived fits."""
        if self.view is not self.own and self.end - self.start <= BUFFER_BYTES:
            self._move_to(self.own)
            self._arrival.buffer_bytes = 0

    def _move_to(self, view: memoryview) -> None:
        arrived = self.end - self.start
        view[:arrived] = self.view[self.start : self.end]
        left, self.view = self.view, view
        self.start, self.end = 0, arrived
        if left is self.own or left is view:
            return
        self._memory.free_buffer(left)
        if self.keeps:
            self.keeps = False
            self._memory.leave_buffer()
