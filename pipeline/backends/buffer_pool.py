"""Memory that backends write again and again, and when they may.

A pass is a batch's whole way through a node, from the moment it is taken until its results are
there. A backend may run several times in one pass: in portions, and once more for each item after
an exception. So memory that an item refers to is written again neither in the same pass nor, in
whichever pass, as long as anything refers to it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

BlockT = TypeVar("BlockT")


class Loan(Generic[BlockT]):
    """A block on loan; it goes back when nothing refers to the loan any more.

    Args:
        block: the memory.
        returned: where it goes back to.

    Attributes:
        block: the memory.
    """

    __slots__ = ("_returned", "block")

    def __init__(self, block: BlockT, returned: deque[BlockT]) -> None:
        self.block = block
        self._returned = returned

    def __del__(self) -> None:
        self._returned.append(self.block)


class BufferPool(Generic[BlockT]):
    """The blocks of one instance's backend; its thread calls all methods, loans end in any.

    Args:
        keeps: whether a block that came back is worth its memory.
    """

    def __init__(self, keeps: Callable[[BlockT], bool] = lambda _: True) -> None:
        self._keeps = keeps
        self._free: list[BlockT] = []
        self._returned: deque[BlockT] = deque()

    def take(self, count: int) -> list[BlockT] | None:
        """So many free blocks, to be written and lent; None if there are fewer.

        Those that are too few are dropped: what is made in their place is enough for the next time.
        """
        if len(self._free) < count:
            self._free = []
            return None
        taken, self._free = self._free[:count], self._free[count:]
        return taken

    def lend(self, block: BlockT) -> Loan[BlockT]:
        """A loan of a block that has been written: one of `take`'s, or a new one."""
        return Loan(block, self._returned)

    def end_pass(self) -> None:
        """Free what came back. No work is outstanding that reads or writes it."""
        while self._returned:
            block = self._returned.popleft()
            if self._keeps(block):
                self._free.append(block)

    def clear(self) -> None:
        """Drop all blocks but those on loan."""
        self._free = []
        self._returned.clear()
