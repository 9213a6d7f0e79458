"""A front end: the server of one process, whose service forwards to replicas."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import Any, Protocol

from cluster.forwarder import Forwarder
from cluster.front_end_service import FrontEndService
from cluster.replica_stats import ReplicaStats
from cluster.replicas import Replicas
from idl import inference
from interfaces.stats import Stats, added
from service.accepting.listener import Listener
from service.call_limits import CallLimits
from service.errors import ConfigurationError
from service.handlers.slow_start import told_while_slow
from service.options.server_settings import ServerSettings
from service.processes.lifecycle import STARTING
from service.thrift_server import ThriftServer
from service.wire.method_table import method_table

_log = logging.getLogger(__name__)

_NONE_READY = (
    "no replica can take requests; they start, or are being replaced; this log and Ray's say why "
    "none comes back"
)
# So that a signal, and the cluster's own troubles, are seen.
_LOOK_S = 1.0


class Cluster(Protocol):
    """Where replicas come from."""

    def start(self, replicas: Replicas) -> int:
        """Have them placed, and keep `replicas` up to date from now on.

        Returns:
            How many are to be ready before the first client is let in.

        Raises:
            ConfigurationError: a setting cannot work.
        """

    def trouble(self) -> str:
        """Why replicas do not come, in one line; "" where nothing is known to be wrong."""

    def in_words(self) -> str:
        """How many replicas there are to be, and why."""

    def close(self) -> None:
        """Give back what was started; requests are answered by then. May be repeated."""


class FrontEnd(ThriftServer):
    """Serves a cluster's replicas at one port.

    Args:
        settings: what its clients may cost.
        listener: where its connections come from.
        cluster: where its replicas come from.
        options_given: the options that are no defaults, in words.
    """

    def __init__(
        self, settings: ServerSettings, listener: Listener, cluster: Cluster, options_given: str
    ) -> None:
        super().__init__(settings, listener)
        self._cluster = cluster
        self._options_given = options_given
        self._replicas = Replicas()
        self._replica_stats = ReplicaStats()
        self._stopping = ""
        self._wanted = 0
        self._service: FrontEndService | None = None

    def startup(self) -> None:
        """Take the port, have replicas placed, then let clients in."""
        self._open()
        with told_while_slow("waiting for replicas to load and warm up their model"):
            self._wanted = self._cluster.start(self._replicas)
            self._wait_for(self._wanted)
        self._service = FrontEndService(
            Forwarder(self._replicas),
            self._replicas,
            CallLimits(self._settings),
            self._counts,
            self,
        )
        _log.info("replicas: %s", self.replicas_in_words())
        _log.info("options: %s", self._options_given or "none given")
        info = self._service.server_info()
        methods = method_table(inference.InferenceService, self._service)
        self._let_in(
            methods, f"{info.handler} handler ({info.engine}, {info.precision}, {info.model})"
        )

    def stats(self) -> Stats:
        """Its own numbers, and what only the replicas know."""
        of_replicas = self._replica_stats.sum(self._replicas.all())
        open_connections = self._connections.open()
        in_flight = self._connections.in_flight()
        own = replace(
            self._counts.read(),
            calls_in_flight=in_flight,
            images_in_flight=sum(replica.outstanding for replica in self._replicas.all()),
            connections=len(open_connections),
            reserve_connections=sum(connection.is_reserve for connection in open_connections),
            max_connections=self._settings.max_connections,
            connections_opened=self._connections.opened,
            wanted_workers=max(self._wanted, len(of_replicas.workers)),
        )
        return replace(added(own, of_replicas), uptime_s=time.monotonic() - self._started_s)

    def info(self) -> Any:
        """That of one of the replicas."""
        return None if self._service is None else self._service.server_info()

    def why_not_ready(self) -> str:
        """Why no request can be taken."""
        if self._stopping:
            return self._stopping
        if self._service is None:
            return STARTING
        told = [replica.entry.why_not_ready for replica in self._replicas.all()]
        return _NONE_READY if not told else "" if "" in told else told[0]

    def replicas_in_words(self) -> str:
        """How many there are, and why so many."""
        return f"{len(self._replicas.all())} ({self._cluster.in_words()})"

    def shutdown(self) -> None:
        """Free the port, and what the cluster has for this front end."""
        super().shutdown()
        self._replicas.close()
        self._cluster.close()

    def _wait_for(self, count: int) -> None:
        told = ""
        while not self._replicas.wait_for(count, _LOOK_S):
            if self._replicas.failure:
                raise ConfigurationError(self._replicas.failure)
            trouble = self._cluster.trouble()
            if trouble and trouble != told:
                _log.warning("replicas do not come: %s", trouble)
            told = trouble

    def _sum_up(self) -> None:
        self._troubles.tell(self._counts.read())

    def _not_ready(self, reason: str) -> None:
        self._stopping = f"the server stops: {reason}"
