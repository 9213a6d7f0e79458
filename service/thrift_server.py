"""One process that serves Thrift: its connections, from the first one to the drained last one."""

from __future__ import annotations

import logging
import socket
import ssl
import time
from abc import abstractmethod
from typing import Any

from interfaces.garbage import keep_all
from service.accepting.connection_threads import ConnectionThreads
from service.accepting.listener import Arrival, DrainNotice, Listener, StopRequest
from service.accepting.reserve import ReserveTerms
from service.malloc_arenas import keep_freed_blocks
from service.options.server_settings import ServerSettings
from service.processes.lifecycle import Lifecycle
from service.processes.process import is_done_within
from service.requests.telling import telling
from service.wire.buffer_budget import BufferBudget
from service.wire.connection import Connection
from service.wire.method_table import MethodTable
from service.wire.processor import Processor
from service.wire.tls import TlsTransport, tls_context
from service.wire.transport import PlainTransport, Timeouts, Transport

_log = logging.getLogger(__name__)

# For traces that have not left yet.
_TELLING_S = 1.0


class ThriftServer(Lifecycle):
    """Answers the calls of its connections, with one thread for each.

    Args:
        settings: what its clients may cost.
        listener: where its connections come from.
        worker: its number among the server's processes.
    """

    def __init__(self, settings: ServerSettings, listener: Listener, worker: int = 0) -> None:
        super().__init__(settings, listener)
        self._started_s = time.monotonic()
        self._telling = telling(settings, worker)
        self._counts = self._telling.counts
        self._methods: MethodTable = {}
        self._reserve: ReserveTerms | None = None
        self._limits = settings.message_limits
        self._memory = BufferBudget(settings.max_buffered_bytes)
        self._timeouts = settings.timeouts
        self._tls: ssl.SSLContext | None = None
        self._connections = ConnectionThreads(self.wake)

    @abstractmethod
    def _not_ready(self, reason: str) -> None:
        """Say through `health` that the server stops."""

    def _processor(self, transport: Transport, address: str) -> Processor:
        """What answers the calls of one more connection, which is no reserve."""
        del transport, address
        return Processor(self._methods, self._counts)

    def _open(self) -> None:
        """Take the port, before the slow part of a start: what is wrong is told at once."""
        self._listener.open()
        if (files := self._settings.tls_files) is not None:
            self._tls = tls_context(files)

    def _let_in(self, methods: MethodTable, running: str) -> None:
        """Accept clients from now on.

        Args:
            methods: what they may call.
            running: what runs, in words, for the line that says that it is ready.
        """
        self._methods = methods
        self._reserve = ReserveTerms(methods, self._timeouts, self._settings.max_connections)
        keep_all()
        keep_freed_blocks()
        # First, since a reader of the ready line may stop the server at once.
        self.ready = True
        self._listener.start(self._selector, running)

    def drain(self) -> int:
        """Finish the requests in flight, for `drain_timeout_s` at most.

        Returns:
            How many requests were cut off unfinished.
        """
        self._not_ready(self._stop_reason)
        self._listener.close()
        _log.info(
            "stopping (%s): finishing %d requests in flight",
            self._stop_reason,
            self._connections.in_flight(),
        )
        for connection in self._connections.open():
            connection.stop()
        deadline_s = time.monotonic() + self._settings.drain_timeout_s
        while self._connections.open() and time.monotonic() < deadline_s:
            self._turn(deadline_s)
        self._connections.join_finished()
        cut_off = self._connections.in_flight()
        for connection in self._connections.open():
            connection.cut_off()
        if cut_off:
            _log.error(
                "%d requests were cut off: not finished within --drain-timeout-s = %s",
                cut_off,
                self._settings.drain_timeout_s,
            )
        return cut_off

    def shutdown(self) -> None:
        """Free the port."""
        super().shutdown()
        is_done_within(_TELLING_S, self._telling.close)

    def _announce_stop(self) -> None:
        self._not_ready(self._stop_reason)

    def _on_wakeup(self) -> None:
        self._listener.count_closed(*self._connections.join_finished())

    def _transport(self, sock: socket.socket, timeouts: Timeouts) -> Transport:
        if self._tls is None:
            return PlainTransport(sock, timeouts)
        return TlsTransport(sock, timeouts, self._tls)

    def _connection(self, arrival: Arrival) -> Connection:
        sock, address, is_reserve = arrival
        if is_reserve and (terms := self._reserve) is not None:
            transport = self._transport(sock, terms.timeouts)
            processor = Processor(terms.methods, self._counts)
            return Connection(
                transport,
                address,
                processor,
                self._limits,
                terms.memory,
                is_reserve=True,
                replied=self._telling.replied,
            )
        transport = self._transport(sock, self._timeouts)
        return Connection(
            transport,
            address,
            self._processor(transport, address),
            self._limits,
            self._memory,
            replied=self._telling.replied,
        )

    def _on_readable(self, data: Any) -> None:
        del data
        arrival = self._listener.accept()
        if arrival is None:
            return
        if isinstance(arrival, StopRequest):
            self.stop(arrival.reason)
            return
        if isinstance(arrival, DrainNotice):
            self._not_ready(arrival.reason)
            _log.info("not ready: the server will stop (%s)", arrival.reason)
            return
        try:
            self._connections.start(self._connection(arrival), arrival.sock)
        except RuntimeError as error:
            _log.error("closed %s: %s", arrival.address, error)
            self._listener.count_closed(1, int(arrival.is_reserve))

    def _next_due_s(self) -> float:
        return self._connections.free_reserve()
