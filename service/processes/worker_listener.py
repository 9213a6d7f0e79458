"""The listener of a worker, which gets the connections that the supervisor accepted."""

from __future__ import annotations

import logging
import selectors
import socket

from service.accepting.listener import Arrival, DrainNotice, StopRequest
from service.processes.control_channel import ControlChannel
from service.processes.worker_messages import (
    ConnectionCounts,
    HeartbeatRequest,
    NewConnection,
    Ready,
    StatsRequest,
    WholeStats,
)
from service.processes.worker_stats import WorkerStatsLine

_log = logging.getLogger(__name__)


class WorkerListener:
    """Receives connections from the supervisor, which limits their number.

    Args:
        control: the channel to the supervisor.
        stats: answers its questions.

    Attributes:
        beats: how many signs of life the supervisor has asked for; None once none are to come.
    """

    def __init__(self, control: ControlChannel, stats: WorkerStatsLine | None = None) -> None:
        self._control = control
        self._stats = stats
        self._selector: selectors.BaseSelector | None = None
        self._taken = 0
        self._closed = 0
        self._closed_reserve = 0
        self.beats: int | None = 0

    def open(self) -> None:
        """Nothing: the supervisor has the port."""

    def start(self, selector: selectors.BaseSelector, running: str) -> None:
        """Tell the supervisor that this worker is ready."""
        self._selector = selector
        selector.register(self._control, selectors.EVENT_READ)
        self._control.send(Ready(running))
        # From now on the supervisor is expected to ask.
        self.beats = 1

    def accept(self) -> Arrival | StopRequest | DrainNotice | None:
        """The next connection, or what the supervisor says instead."""
        message = self._control.receive()
        if message is None:
            # The supervisor is gone, and this process in the next moment.
            return None
        content = message.content
        if isinstance(content, HeartbeatRequest):
            # From the thread that takes connections: while it answers, this worker can serve.
            self.beats = 1 if self.beats is None else self.beats + 1
            self._report()
            if self._stats is not None:
                self._stats.report()
        elif self._stats is not None and isinstance(content, StatsRequest | WholeStats):
            self._stats.receive(message)
        elif isinstance(content, StopRequest):
            self.beats = None
            return content
        elif isinstance(content, DrainNotice):
            return content
        elif isinstance(content, NewConnection):
            self._taken += 1
            try:
                sock = socket.socket(fileno=message.descriptor())
            except OSError:
                _log.error(
                    "closed %s: this process has no descriptor left for it; allow more with "
                    "ulimit -n",
                    content.address,
                )
                self.count_closed(1, int(content.is_reserve))
                return None
            self._report()
            return Arrival(sock, content.address, content.is_reserve)
        return None

    def count_closed(self, connections: int, reserve: int = 0) -> None:
        """Tell the supervisor, which counts them."""
        self._closed += connections
        self._closed_reserve += reserve
        self._report()

    def pause_s(self) -> float | None:
        """Nothing is waited for."""
        return None

    def end_pause(self) -> None:
        """Nothing: the supervisor accepts."""

    def close(self) -> None:
        """Take nothing any more."""
        if self._selector is not None:
            self._selector.unregister(self._control)
            self._selector = None

    def _report(self) -> None:
        self._control.send(ConnectionCounts(self._taken, self._closed, self._closed_reserve))
