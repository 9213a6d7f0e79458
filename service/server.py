"""The server's life: start up, serve, drain."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from idl import inference
from interfaces.stats import Stats, WorkerStats, added
from service.accepting.listener import Listener
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
from service.processes.lifecycle import STARTING
from service.processes.placement import Placement
from service.processes.process import CLOSING_S, is_done_within
from service.processes.stats_report import Report
from service.thrift_server import ThriftServer
from service.wire.method_table import method_table

_log = logging.getLogger(__name__)

_ALONE = Placement()


class Server(ThriftServer):
    """Serves one handler.

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
        super().__init__(settings, listener, placement.worker)
        self._whole_stats = whole_stats or self.stats
        self._admission: Admission | None = None
        self._service: InferenceService | None = None
        self._placement = placement
        self._handler_name = handler_name
        self._load_handler = load_handler
        self._handler: Handler | None = None
        self._warm_up: WarmUp | None = None
        self._readiness: Readiness | None = None

    def startup(self) -> None:
        """Take the port, load and warm up the handler, then let clients in."""
        self._open()
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
        runs = f"{info.engine}, {info.precision}, {info.model}"
        if self._placement.supervisor_pid is None:
            _log.info("workers: 1 (%s)", self._placement.why)
            _log.info("options: %s", self._placement.options_given or "none given")
        methods = method_table(inference.InferenceService, self._service)
        self._let_in(methods, f"{self._handler_name} handler ({runs})")

    def stats(self) -> Stats:
        """What this process does and has done, as the whole server."""
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
        """The ServerInfo of this process."""
        return None if self._service is None else self._service.server_info()

    def why_not_ready(self) -> str:
        """Why this process can take no requests, "" where it can."""
        return STARTING if self._readiness is None else self._readiness.why_not()

    @property
    def expected_wait_s(self) -> float:
        """How long an image that comes now would wait for others; 0 before it can serve."""
        return 0.0 if self._admission is None else self._admission.expected_wait_s

    @property
    def full_batch_s(self) -> float:
        """How long as many images take as it works on at once; 0 before it can serve."""
        return 0.0 if self._admission is None else self._admission.full_batch_s

    @property
    def busy_s(self) -> float:
        """How long it has had work, in proportion while there was less than it does at once."""
        return 0.0 if self._admission is None else self._admission.busy_s

    @property
    def images_at_work(self) -> int:
        """How many images its handler works on at once; 0 before it can serve."""
        return 0 if self._handler is None else self._handler.info().images_at_work

    def trouble(self, reason: str) -> None:
        """Say through `health` that it is not ready, until the reason is ""; for any thread."""
        if self._readiness is not None:
            self._readiness.trouble(reason)

    def shutdown(self) -> None:
        """Free the port, and the handler unless calls that were cut off still run in it."""
        super().shutdown()
        is_warming_up = self._warm_up is not None and self._warm_up.is_under_way
        if self._handler is None or is_warming_up or self._connections.in_flight():
            return
        if not is_done_within(CLOSING_S, self._handler.close):
            _log.error("the handler hangs and is not closed: not done within %g s", CLOSING_S)

    def _sum_up(self) -> None:
        if self._placement.supervisor_pid is None:
            self._troubles.tell(self._counts.read())

    def _not_ready(self, reason: str) -> None:
        if self._readiness is not None:
            self._readiness.end(reason)
