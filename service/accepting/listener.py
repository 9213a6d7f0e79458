"""Listeners, which give a server its connections."""

from __future__ import annotations

import errno
import logging
import selectors
import socket
import time
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from service.accepting.listening_socket import address_text, bind, listen
from service.logs.rate_limited import RateLimitedWarnings
from service.options.server_settings import ServerSettings

_log = logging.getLogger(__name__)

# Clients that the kernel holds while all connections are taken.
_BACKLOG = 128
RESERVE_CONNECTIONS = 32
"""Of each process that serves, beyond --max-connections: for probes, and for clients that are told
to come back later."""

# What accept(2) says of the one connection that it would have given: the next one is not touched.
_OF_ONE_CONNECTION = {
    *(errno.ECONNABORTED, errno.EPROTO, errno.EPERM, errno.ENOPROTOOPT, errno.EOPNOTSUPP),
    *(errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENONET),
}
# Unless all that come fail in this way.
_MOST_AT_ONCE = 100
# These say that there is no listening socket: trying again is of no use.
_OF_THE_LISTENER = {errno.EBADF, errno.EFAULT, errno.EINVAL, errno.ENOTSOCK}
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 1.0


class Arrival(NamedTuple):
    """A connection that was accepted.

    Attributes:
        sock: its connection.
        address: its address, for log lines.
        is_reserve: whether it is one beyond --max-connections.
    """

    sock: socket.socket
    address: str
    is_reserve: bool = False


@dataclass(frozen=True)
class StopRequest:
    """The supervisor wants the server to stop.

    Attributes:
        reason: why, for the log.
    """

    reason: str


@dataclass(frozen=True)
class DrainNotice:
    """The supervisor will stop the server soon, which `health` is to say until then.

    Attributes:
        reason: why, for the log.
    """

    reason: str


class Listener(Protocol):
    """The source of a server's connections; used by its serving thread only."""

    def open(self) -> None:
        """Take the address before the first client is accepted.

        Raises:
            OSError: the address cannot be had.
        """

    def start(self, selector: selectors.BaseSelector, running: str) -> None:
        """Accept clients from now on: make `selector` return whenever one may be there.

        Args:
            selector: the one that the serving thread waits in.
            running: what runs, in words, for the line that says that it is ready.
        """

    def accept(self) -> Arrival | StopRequest | DrainNotice | None:
        """The next client or what the supervisor says instead; None where nothing has come."""

    def count_closed(self, connections: int, reserve: int = 0) -> None:
        """So many of the connections that arrived are closed, of which `reserve` were reserve."""

    def pause_s(self) -> float | None:
        """When to call `end_pause` at the latest; None where it is not waited for."""

    def end_pause(self) -> None:
        """Try again what could not be done, if its time has come."""

    def close(self) -> None:
        """Accept no more clients; safe to repeat."""


class PortListener:
    """The listener at a port of this process, for `max_connections` and a few in reserve at a time.

    Further ones wait in the kernel until one of these closes.

    Attributes:
        address: host and port; the real ones once it is open.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self.address: tuple[str, int] = (settings.host, settings.port)
        self._max_connections = settings.max_connections
        self._reserve_connections = RESERVE_CONNECTIONS * settings.processes
        self._full = RateLimitedWarnings(_log)
        self._socket: socket.socket | None = None
        self._selector: selectors.BaseSelector | None = None
        # Those that are open, and how many of them are reserve connections.
        self._connections = 0
        self._reserve = 0
        self._accepting = False
        self._held = False
        # Since accept failed last: how often in a row, and the pause that this has led to.
        self._failures = 0
        self._pause_length_s = 0.0
        self._pause_end_s: float | None = None

    def open(self) -> None:
        """Take the port, but refuse clients still: a port in use is told before a slow start."""
        self._socket = bind(*self.address)
        self.address = self._socket.getsockname()[:2]

    def start(self, selector: selectors.BaseSelector, running: str) -> None:
        """Listen, and log the line by which others know that the server is ready."""
        if self._socket is None:
            raise RuntimeError("start needs an open port")
        self._selector = selector
        self._socket.setblocking(False)
        listen(self._socket, _BACKLOG)
        self._resume()
        self._announce(running, address_text(self.address))

    def accept(self) -> Arrival | None:
        """The next client; None if it is gone, or if the process has no means to serve it now."""
        if self._socket is None:
            return None
        try:
            sock, address = self._socket.accept()
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno in _OF_THE_LISTENER:
                raise
            self._failed(error)
            return None
        if self._pause_length_s:
            self._pause_length_s = 0.0
            _log.info("connections are accepted again")
        self._failures = 0
        is_reserve = self._connections - self._reserve >= self._max_connections
        self._connections += 1
        self._reserve += is_reserve
        if not is_reserve and self._connections - self._reserve == self._max_connections:
            self._full.warn(
                "%d connections are open, as --max-connections allows; on %d more, ping and health "
                "are answered, and calls are refused as overload",
                self._max_connections,
                self._reserve_connections,
            )
        if not self._has_room():
            self._pause()
        return Arrival(sock, address_text(address), is_reserve)

    def count_closed(self, connections: int, reserve: int = 0) -> None:
        """Accept again if that makes room, or gives back what accept had lacked."""
        self._connections -= connections
        self._reserve -= reserve
        if connections:
            self._pause_end_s = None
        self._resume()

    def pause_s(self) -> float | None:
        """How long it is until accept is tried again; None where it has not failed."""
        if self._pause_end_s is None:
            return None
        return max(0.0, self._pause_end_s - time.monotonic())

    def end_pause(self) -> None:
        """Accept again if the time has come."""
        if self._pause_end_s is not None and self._pause_end_s <= time.monotonic():
            self._pause_end_s = None
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
        self._pause_end_s = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _announce(self, running: str, address: str) -> None:
        _log.info("ready: %s on %s", running, address)

    def _failed(self, error: OSError) -> None:
        """Go on with the next connection at once, or after a pause."""
        self._failures += 1
        if error.errno in _OF_ONE_CONNECTION and self._failures < _MOST_AT_ONCE:
            return
        if not self._pause_length_s:
            _log.error(
                "cannot accept a connection: %s; it is tried again after a pause", error.strerror
            )
        self._pause_length_s = min(max(_FIRST_PAUSE_S, 2 * self._pause_length_s), _LONGEST_PAUSE_S)
        self._pause_end_s = time.monotonic() + self._pause_length_s
        self._pause()

    def _has_room(self) -> bool:
        return self._connections < self._max_connections + self._reserve_connections

    def _pause(self) -> None:
        if self._accepting and self._selector is not None and self._socket is not None:
            self._selector.unregister(self._socket)
            self._accepting = False

    def _resume(self) -> None:
        if self._accepting or self._held or self._selector is None or self._socket is None:
            return
        if self._pause_end_s is None and self._has_room():
            self._selector.register(self._socket, selectors.EVENT_READ)
            self._accepting = True
