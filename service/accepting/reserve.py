"""What a connection beyond --max-connections gets: one answer, soon, and none that costs much."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NoReturn

from idl import inference
from service.call_counts import CONNECTIONS
from service.refusals import overloaded
from service.wire.buffer_budget import BufferBudget, MemoryFullError
from service.wire.method_table import MethodTable
from service.wire.transport import Timeouts

_RETRY_AFTER_MS = 1000
# A slower client may not keep the connection from the next one.
_LONGEST_S = 2.0


class ReserveTerms:
    """The terms on which reserve connections are served; the same for all of them.

    A method that declares Overloaded is refused with it. The others (`ping`, `health`,
    `server_info`, `stats`) need no engine, and are answered. Large messages are refused before
    they are received.

    Args:
        methods: those of the other connections.
        timeouts: theirs, too.
        max_connections: how many others there are.

    Attributes:
        methods: of reserve connections.
        timeouts: of reserve connections.
        memory: for their messages: none.
    """

    def __init__(self, methods: MethodTable, timeouts: Timeouts, max_connections: int) -> None:
        told = (
            f"{max_connections} connections are open, as --max-connections allows; "
            "this one is closed"
        )

        def refuse(*arguments: Any) -> NoReturn:
            del arguments
            raise overloaded(CONNECTIONS, told, _RETRY_AFTER_MS)

        self.methods = {
            name: replace(method, call=refuse, check=None)
            if inference.Overloaded in method.exceptions
            else method
            for name, method in methods.items()
        }
        self.timeouts = Timeouts(
            min(timeouts.idle_s or _LONGEST_S, _LONGEST_S),
            min(timeouts.message_s, _LONGEST_S),
            min(timeouts.write_s, _LONGEST_S),
        )
        self.memory = _NoMemory(told)


class _NoMemory(BufferBudget):
    """A budget without any room."""

    def __init__(self, told: str) -> None:
        super().__init__(0)
        self._told = told

    def take(self, count_bytes: int, held_bytes: int = 0, whole_bytes: int = 0) -> NoReturn:
        """Refuse."""
        del count_bytes, held_bytes, whole_bytes
        raise MemoryFullError(self._told, _RETRY_AFTER_MS, CONNECTIONS)
