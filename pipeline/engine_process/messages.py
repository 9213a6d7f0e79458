"""What a worker and the engine process tell each other, besides items and their outcomes."""

from __future__ import annotations

import socket
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.engine_process.engine_facts import EngineFacts
from service.logs.log_settings import LogSettings

_SLOT_TYPE = "I"
# As many as a worker has slots, of which each is named once.
_RECEIVE_BYTES = 4096


@dataclass(frozen=True)
class EngineProcessSettings:
    """To an engine process, on its stdin: what it is to run.

    Attributes:
        document: the pipeline file with all that replaces something in it.
        entry: the first of the nodes that run there.
        engine: a provider's name or "auto".
        backends: file of backends in Python, or None.
        hang_timeout_s: how long it may give no sign of life; 0 for no limit.
        log: level, format and file of its log.
    """

    document: Mapping[str, Any]
    entry: str
    engine: str
    backends: str | None
    hang_timeout_s: float
    log: LogSettings


@dataclass(frozen=True)
class SharedSlots:
    """From a worker: the memory that it shares, whose descriptor comes with the message.

    Attributes:
        count: number of slots.
        slot_bytes: size of each.
    """

    count: int
    slot_bytes: int


@dataclass(frozen=True)
class Welcome:
    """To a worker: items can be submitted, on the pipe whose descriptor comes with the message.

    Attributes:
        worker: the worker's number in submissions.
        facts: what runs there.
    """

    worker: int
    facts: EngineFacts


@dataclass(frozen=True)
class CannotRun:
    """To a worker: the engine process ends, since its nodes cannot run.

    Attributes:
        reason: why.
    """

    reason: str


FROM_WORKER = (SharedSlots,)
TO_WORKER = (Welcome, CannotRun)


class SlotNumbers:
    """Slot numbers on the socket that the messages came on: several at once when there are several.

    Args:
        sock: a connected Unix socket of type SOCK_SEQPACKET.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    def send(self, slots: array[int]) -> None:
        """Send numbers; of several threads one at a time may."""
        self._socket.sendall(slots)

    def receive(self) -> array[int]:
        """Wait for numbers.

        Raises:
            EOFError: the other process ended.
        """
        while True:
            try:
                received = self._socket.recv(_RECEIVE_BYTES)
            except ConnectionResetError:
                # Something of ours was left unread. What was sent before can still be read.
                continue
            if not received:
                raise EOFError("the other process ended")
            return array(_SLOT_TYPE, received)
