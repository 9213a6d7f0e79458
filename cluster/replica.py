"""A replica: what Ray Serve places, asks for its health, replaces and ends."""

from __future__ import annotations

import logging
import os
import threading
import time
from dataclasses import replace
from typing import Any

import ray
from ray import serve

from cluster.autoscaling import BusyShare, metrics
from cluster.registry import ANNOUNCE_EVERY_S
from cluster.registry_link import RegistryLink
from cluster.release import Plan, Rollout
from cluster.replica_entry import ReplicaEntry
from cluster.replica_server import ReplicaServer
from engine.cpu.cores import CORES_VARIABLE
from service.errors import ConfigurationError
from service.logs.start import start_log
from service.processes.process import error_line

_log = logging.getLogger(__name__)

_REGISTRY_S = 5.0


class Replica:
    """Runs the handler's server, and tells front ends where it is. No image comes through Serve.

    Args:
        plan: what to run.
    """

    def __init__(self, plan: Plan) -> None:
        name = serve.get_replica_context().replica_tag
        self._plan, release = plan, plan.release
        start_log(release.log, f"replica {name}")
        os.environ[CORES_VARIABLE] = str(plan.cores)
        self._registry = RegistryLink()
        self._is_over = threading.Event()
        self._rollout = Rollout()
        self._is_announced = threading.Event()
        node = ray.get_runtime_context().get_node_id()
        host = plan.host or _address_of(node)
        self._settings = replace(release.settings, host=host)
        self._server = ReplicaServer(
            release.handler, release.for_handler, self._settings, release.options_given
        )
        try:
            _, port = self._server.start()
        except (ConfigurationError, OSError) as error:
            line, _ = error_line(error)
            self._registry.call("fail", release.name, line, timeout_s=_REGISTRY_S)
            raise
        self._busy_share = BusyShare(time.monotonic())
        self._entry = ReplicaEntry(
            name,
            host,
            port,
            node,
            os.getpid(),
            release.name,
            self._server.server.images_at_work,
        )
        threading.Thread(target=self._announce, name="announce", daemon=True).start()

    def reconfigure(self, rollout: dict[str, Any]) -> None:
        """Called by Serve: `Rollout` as a dictionary, at first and with each change of it."""
        self._rollout = Rollout(**rollout)
        if self._rollout.is_announced:
            self._is_announced.set()

    def described(self) -> tuple[Plan, Rollout]:
        """What it runs, and how far the update that has brought it is."""
        return self._plan, self._rollout

    def check_health(self) -> None:
        """Raise while the handler cannot classify: Serve replaces what stays so."""
        if reason := self._server.why_not_ready():
            raise RuntimeError(reason)

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Its metrics for the policy."""
        server = self._server.server
        share = self._busy_share.look(server.busy_s, time.monotonic())
        wait_s, batch_s = server.expected_wait_s, server.full_batch_s
        return metrics(wait_s, batch_s, share, self._settings.max_queue_ms)

    def entry(self) -> ReplicaEntry:
        """What front ends know of it."""
        return replace(self._entry, why_not_ready=self._server.why_not_ready())

    def __del__(self) -> None:
        """Take no more requests, and finish those in flight; Serve waits for it."""
        if not hasattr(self, "_entry") or self._is_over.is_set():
            return
        self._is_over.set()
        self._is_announced.set()
        try:
            self._registry.call("withdraw", self._entry.name, timeout_s=_REGISTRY_S)
        except ConnectionError as error:
            # Its connections end in order; a call that is just sent is given to another replica.
            _log.warning("front ends were not told of the end of this replica: %s", error)
        self._server.stop("the replica ends")

    def _announce(self) -> None:
        self._is_announced.wait()
        is_heard = True
        while not self._is_over.is_set():
            try:
                self._registry.call("announce", self.entry(), timeout_s=_REGISTRY_S)
            except ConnectionError as error:
                if is_heard:
                    _log.warning("front ends do not hear of this replica: %s", error)
                is_heard = False
            else:
                is_heard = True
            self._is_over.wait(ANNOUNCE_EVERY_S)


def _address_of(node: str) -> str:
    """A node's address as the others of the cluster know it, whatever this host calls itself."""
    return next(str(one["NodeManagerAddress"]) for one in ray.nodes() if one["NodeID"] == node)
