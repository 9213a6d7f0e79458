"""Calls of a pipeline that have begun and are not over, which closing it waits for."""

from __future__ import annotations

import threading

from pipeline.errors import PipelineInputError
from pipeline.runtime.task import Call


class ActiveCalls:
    """Calls between `begin` and `end`, which take no lock: each item pays for them.

    A caller may run operators itself and hand its item from node to node, so that no node can be
    stopped while it is on its way.
    """

    def __init__(self) -> None:
        self._calls: set[Call] = set()
        self._is_closed = False
        self._none_left = threading.Event()

    def begin(self, call: Call) -> None:
        """A call begins; PipelineInputError once `close` was called."""
        # In this order, and the other way round in `close`: one of the two sees the other.
        self._calls.add(call)
        if self._is_closed:
            self.end(call)
            raise PipelineInputError("the pipeline is closed")

    def end(self, call: Call) -> None:
        """It is over."""
        self._calls.discard(call)
        if self._is_closed and not self._calls:
            self._none_left.set()

    def holds_up(self, thread: int) -> bool:
        """Whether the thread of that number waits for the end of a call, or runs it itself."""
        # A copy, which is made in one step: calls begin and end meanwhile.
        return any(call.caller == thread and call.caller_waits for call in self._calls.copy())

    def close(self) -> None:
        """Let no call begin any more, and wait until those under way are over."""
        self._is_closed = True
        if self._calls:
            self._none_left.wait()
