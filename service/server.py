"""The server's life: start up, serve, drain."""

from __future__ import annotations

import gc
import logging
import os
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from idl import inference
from interfaces.stats import Stats, WorkerStats, added
from service.accepting.connection_threads import ConnectionThreads
from service.accepting.listener import (
    Arrival,
    DrainNotice,
    Listener,
    StopRequest,
)
from service.accepting.reserve import ReserveTerms
from service.admission import Admission
from service.call_limits import CallLimits
from service.gpus import gpus
from service.handlers.interface import Handler
from service.handlers.readiness import Readiness
from service.handlers.slow_start import told_while_slow
from service.handlers.warm_up import WarmUp
from service.inference_service import InferenceService
from service.labels import Labels
from service.options.server_settings import ServerSettings
from service.processes.lifecycle import STARTING, Lifecycle
from service.processes.placement import Placement
from service.processes.process import CLOSING_S, is_done_within
from service.processes.stats_report import Report
from service.requests.telling import telling
from service.wire.buffer_budget import BufferBudget
from service.wire.connection import Connection
from service.wire.processor import MethodTable, Processor, method_table
from service.wire.tls import TlsTransport, tls_context
from service.wire.transport import PlainTransport, Timeouts, Transport

_log = logging.getLogger(__name__)

_ALONE = Placement()
# For traces that have not left yet.
_TELLING_S = 1.0


class Server(Lifecycle):
    """Serves one handler, with one thread for each connection.

    Args:
        settings: what its clients may cost.
        handler_name: its name for `server_info`.
        load_handler: makes the handler; the slow part of a start.
        listener: where its connections come from.
        placement: its place among the server's processes.
        whole_stats: the stats of the whole server; None where this process is the server.
    """

    def __init__(
        self,
        settings: ServerSettings,
        handler_name: str,
        load_handler: Callable[[], Handler],
        listener: Listener,
        placement: Placement = _ALONE,
        whole_stats: Callable[[], Stats] | None = None,
    ) -> None:
        super().__init__(settings, listener)
        self._started_s = time.monotonic()
        self._telling = telling(settings, placement.worker)
        self._counts = self._telling.counts
        self._whole_stats = whole_stats or self.stats
        self._admission: Admission | None = None
        self._service: InferenceService | None = None
        self._placement = placement
        self._handler_name = handler_name
        self._load_handler = load_handler
        self._handler: Handler | None = None
        self._warm_up: WarmUp | None = None
        self._readiness: Readiness | None = None
        self._methods: MethodTable = {}
        self._reserve: ReserveTerms | None = None
        self._limits = settings.message_limits
        self._memory = BufferBudget(settings.max_buffered_bytes)
        self._timeouts = settings.timeouts
        self._tls: ssl.SSLContext | None = None
        self._connections = ConnectionThreads(self.wake)

    def startup(self) -> None:
        """Take the port, load and warm up the handler, then let clients in."""
        # Before the slow part, so that a port in use or a wrong certificate is told at once.
        self._listener.open()
        if (files := self._settings.tls_files) is not None:
            self._tls = tls_context(files)
        with told_while_slow(f"loading the {self._handler_name} handler and its model"):
            self._handler = self._load_handler()
        info = self._handler.info()
        if info.note:
            _log.warning("%s: %s", info.model, info.note)
        labels = Labels.load(self._settings.labels, info.num_classes)
        self._warm_up = WarmUp(self._handler, self._settings.start_timeout_s)
        between_images_s = self._warm_up.run()
        self._readiness = Readiness(self._handler)
        self._admission = Admission(
            info.images_at_work,
            self._settings.max_queue,
            self._settings.max_queue_ms,
            between_images_s,
        )
        self._service = InferenceService(
            self._handler_name,
            self._handler,
            labels,
            self._admission,
            CallLimits(self._settings),
            self._placement,
            self._readiness,
            self._counts,
            self._whole_stats,
        )
        self._methods = method_table(inference.InferenceService, self._service)
        self._reserve = ReserveTerms(self._methods, self._timeouts, self._settings.max_connections)
        # What start-up made stays for good; collections that pass over it would stall requests.
        gc.collect()
        gc.freeze()
        runs = f"{info.engine}, {info.precision}, {info.model}"
        if self._placement.supervisor_pid is None:
            _log.info("workers: 1 (%s)", self._placement.why)
            _log.info("options: %s", self._placement.options_given or "none given")
        # First, since a reader of the ready line may stop the server at once.
        self.ready = True
        self._listener.start(self._selector, f"{self._handler_name} handler ({runs})")

    def stats(self) -> Stats:
        """Those of this process as a whole server."""
        report = self.report(with_info=False)
        if report is None:
            return Stats(uptime_s=time.monotonic() - self._started_s)
        elsewhere = report.elsewhere or Stats()
        return replace(added(report.own, elsewhere), uptime_s=report.own.uptime_s, gpus=gpus())

    def report(self, *, with_info: bool) -> Report | None:
        """What this process tells the one that adds up; None before it can serve."""
        service, handler, admission = self._service, self._handler, self._admission
        if service is None or handler is None or admission is None:
            return None
        of_handler, load = handler.stats(), admission.load
        open_connections = self._connections.open()
        counted = self._counts.read()
        worker = WorkerStats(
            self._placement.worker,
            os.getpid(),
            self.why_not_ready(),
            len(open_connections),
            load.images,
            sum(counted.calls_by_outcome().values()),
        )
        own = replace(
            counted,
            uptime_s=time.monotonic() - self._started_s,
            calls_in_flight=load.calls,
            images_in_flight=load.images,
            images_waiting=load.waiting,
            connections=len(open_connections),
            reserve_connections=sum(connection.is_reserve for connection in open_connections),
            max_connections=self._settings.max_connections,
            connections_opened=self._connections.opened,
            nodes=of_handler.nodes,
            workers=[worker],
            wanted_workers=self._placement.workers,
        )
        return Report(own, of_handler.elsewhere, service.server_info() if with_info else None)

    def info(self) -> Any:
        """That of this process."""
        return None if self._service is None else self._service.server_info()

    def why_not_ready(self) -> str:
        """That of this process."""
        return STARTING if self._readiness is None else self._readiness.why_not()

    def trouble(self, reason: str) -> None:
        """Say through `health` that it is not ready, until the reason is ""; for any thread."""
        if self._readiness is not None:
            self._readiness.trouble(reason)

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
        """Free the port, and the handler unless calls that were cut off still run in it."""
        super().shutdown()
        is_done_within(_TELLING_S, self._telling.close)
        is_warming_up = self._warm_up is not None and self._warm_up.is_under_way
        if self._handler is None or is_warming_up or self._connections.in_flight():
            return
        if not is_done_within(CLOSING_S, self._handler.close):
            _log.error("the handler hangs and is not closed: not done within %g s", CLOSING_S)

    def _sum_up(self) -> None:
        if self._placement.supervisor_pid is None:
            self._troubles.tell(self._counts.read())

    def _announce_stop(self) -> None:
        self._not_ready(self._stop_reason)

    def _on_wakeup(self) -> None:
        self._listener.count_closed(*self._connections.join_finished())

    def _not_ready(self, reason: str) -> None:
        if self._readiness is not None:
            self._readiness.end(reason)

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
        processor = Processor(self._methods, self._counts)
        return Connection(
            transport, address, processor, self._limits, self._memory, replied=self._telling.replied
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
