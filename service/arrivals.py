"""Where a server's connections come from."""

from __future__ import annotations

import errno
import logging
import selectors
import socket
from typing import NamedTuple, Protocol

from service.listening import address_text, bind, listen
from service.server_settings import ServerSettings

_log = logging.getLogger(__name__)

# Clients that the kernel holds while all connections are taken.
_BACKLOG = 128
_OUT_OF_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Arrival(NamedTuple):
    """A client that was let in.

    Attributes:
        sock: its connection.
        peer: its address, for log lines.
    """

    sock: socket.socket
    peer: str


class StopRequested(Exception):  # noqa: N818 (a message that arrived, not an error)
    """Raised instead of an arrival: whoever lets clients in wants the server to stop, and why."""


class StopAhead(Exception):  # noqa: N818 (likewise)
    """Raised instead of an arrival: the server will have to stop soon, and why."""


class Arrivals(Protocol):
    """What brings a server its connections; used by its serving thread only."""

    def open(self) -> None:
        """Take what can be taken before anybody is let in.

        Raises:
            OSError: the address cannot be had.
        """

    def let_in(self, selector: selectors.BaseSelector, running: str) -> None:
        """Let clients in, and make `selector` return whenever there may be one to accept.

        Args:
            selector: the one that the serving thread waits in.
            running: what runs, in words, for the line that says that it is ready.
        """

    def accept(self) -> Arrival | None:
        """The next client, or None where there is none after all.

        Raises:
            StopRequested: there is a reason to stop instead.
            StopAhead: there will be one soon.
        """

    def left(self, connections: int) -> None:
        """So many of the connections that arrived are closed."""

    def close(self) -> None:
        """Let nobody in any more; safe to repeat."""


class PortArrivals:
    """Arrivals at a port of this process, `max_connections` at a time.

    Attributes:
        address: host and port; the real ones once it is open.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self.address: tuple[str, int] = (settings.host, settings.port)
        self._max_connections = settings.max_connections
        self._listener: socket.socket | None = None
        self._selector: selectors.BaseSelector | None = None
        self._connections = 0
        self._accepting = False
        self._held = False

    def open(self) -> None:
        """Take the port, but refuse clients still: a port in use is told before a slow start."""
        self._listener = bind(*self.address)
        self.address = self._listener.getsockname()[:2]

    def let_in(self, selector: selectors.BaseSelector, running: str) -> None:
        """Listen, and log the line by which others know that the server is ready."""
        if self._listener is None:
            raise RuntimeError("let_in needs an open port")
        self._selector = selector
        self._listener.setblocking(False)
        listen(self._listener, _BACKLOG)
        self._resume()
        _log.info("ready: %s on %s", running, address_text(self.address))

    def accept(self) -> Arrival | None:
        """The next client; None if it is gone, or if the process has no means to serve it now."""
        if self._listener is None:
            return None
        try:
            sock, address = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return None
        except OSError as error:
            if error.errno not in _OUT_OF_RESOURCES or not self._connections:
                raise
            _log.warning("cannot accept a connection before another closes: %s", error.strerror)
            self._pause()
            return None
        self._connections += 1
        if self._connections >= self._max_connections:
            _log.warning(
                "%d connections are open, as --max-connections allows; further ones wait",
                self._connections,
            )
            self._pause()
        return Arrival(sock, address_text(address))

    def left(self, connections: int) -> None:
        """Accept again if that makes room."""
        self._connections -= connections
        self._resume()

    def hold(self) -> None:
        """Let clients wait in the kernel until `release`; safe to repeat."""
        self._held = True
        self._pause()

    def release(self) -> None:
        """Accept again if there is room; safe to repeat."""
        if self._held:
            self._held = False
            self._resume()

    def close(self) -> None:
        """Free the port."""
        self._pause()
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def _pause(self) -> None:
        if self._accepting and self._selector is not None and self._listener is not None:
            self._selector.unregister(self._listener)
            self._accepting = False

    def _resume(self) -> None:
        if self._accepting or self._held or self._selector is None or self._listener is None:
            return
        if self._connections < self._max_connections:
            self._selector.register(self._listener, selectors.EVENT_READ)
            self._accepting = True
