"""Arrivals in a worker: connections that the supervisor accepted."""

from __future__ import annotations

import logging
import selectors

from service.arrivals import Arrival, StopAhead, StopRequested
from service.control import ControlChannel

_log = logging.getLogger(__name__)


class HandedArrivals:
    """Connections that the supervisor hands over; how many there may be is its business.

    Args:
        control: the line to the supervisor.
    """

    def __init__(self, control: ControlChannel) -> None:
        self._control = control
        self._selector: selectors.BaseSelector | None = None
        self._taken = 0
        self._closed = 0

    def open(self) -> None:
        """Nothing: the supervisor has the port."""

    def let_in(self, selector: selectors.BaseSelector, running: str) -> None:
        """Tell the supervisor that this worker is ready."""
        self._selector = selector
        selector.register(self._control, selectors.EVENT_READ)
        self._control.send({"running": running})

    def accept(self) -> Arrival | None:
        """The next connection.

        Raises:
            StopRequested: the supervisor wants the worker to stop.
            StopAhead: the supervisor will want that soon.
        """
        message = self._control.receive()
        if message is None:
            # The supervisor is gone, and this process in the next moment.
            return None
        if "stop" in message.content:
            raise StopRequested(message.content["stop"])
        if "stop_ahead" in message.content:
            raise StopAhead(message.content["stop_ahead"])
        self._taken += 1
        peer = message.content["peer"]
        if message.sock is None:
            _log.error(
                "closed %s: this process has no descriptor left for it; allow more with ulimit -n",
                peer,
            )
            self.left(1)
            return None
        self._tell()
        return Arrival(message.sock, peer)

    def left(self, connections: int) -> None:
        """Tell the supervisor, which counts them."""
        self._closed += connections
        self._tell()

    def close(self) -> None:
        """Take nothing any more."""
        if self._selector is not None:
            self._selector.unregister(self._control)
            self._selector = None

    def _tell(self) -> None:
        self._control.send({"taken": self._taken, "closed": self._closed})
