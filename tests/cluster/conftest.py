"""Front ends and replicas in this process, on real sockets, without Ray."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import pytest

from cluster.front_end import FrontEnd
from cluster.gathered_calls import GatheringServer
from cluster.replica_entry import ReplicaEntry
from cluster.replicas import Replicas
from service.accepting.listener import PortListener
from service.handlers.interface import Handler
from service.options.server_settings import ServerSettings
from service.server import Server
from tests.service.conftest import RunningServer, ScriptedHandler

_ADDRESS = "127.0.0.1"


class FixedCluster:
    """Replicas that are there already."""

    def __init__(self, entries: Sequence[ReplicaEntry]) -> None:
        self.entries = list(entries)
        self.replicas: Replicas | None = None
        self.is_closed = False

    def start(self, replicas: Replicas) -> int:
        self.replicas = replicas
        self.show(*self.entries)
        return len(self.entries)

    def show(self, *entries: ReplicaEntry) -> None:
        """These are all that there are from now on."""
        assert self.replicas
        self.replicas.update(entries)

    def trouble(self) -> str:
        return ""

    def in_words(self) -> str:
        return "those of the test"

    def close(self) -> None:
        self.is_closed = True


class Parts:
    """Starts parts of a cluster, all of which are stopped at the end of the test."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._count = 0

    def replica(
        self,
        handler: Handler | None = None,
        *,
        kind: type[Server] = GatheringServer,
        **settings: Any,
    ) -> tuple[RunningServer, ReplicaEntry]:
        """A replica, and what front ends are told of it."""
        changed = replace(ServerSettings(port=0, max_queue_ms=0), **settings)
        listener = PortListener(changed)
        running = self._stack.enter_context(
            _running(
                kind(changed, "null", lambda: handler or ScriptedHandler(), listener), listener
            )
        )
        self._count += 1
        name = f"replica-{self._count}"
        entry = ReplicaEntry(name, _ADDRESS, running.port, "node-1", 1, "release")
        return running, entry

    def front_end(
        self, *entries: ReplicaEntry, **settings: Any
    ) -> tuple[RunningServer, FixedCluster]:
        """A front end for these replicas, and what tells it of them."""
        changed = replace(ServerSettings(port=0), **settings)
        listener, cluster = PortListener(changed), FixedCluster(entries)
        server = FrontEnd(changed, listener, cluster, "")
        return self._stack.enter_context(_running(server, listener)), cluster


@contextmanager
def _running(server: Any, listener: PortListener) -> Iterator[RunningServer]:
    with server:
        server.startup()
        running = RunningServer(server, listener.address[1])
        try:
            yield running
        finally:
            running.stop()


@pytest.fixture
def parts() -> Iterator[Parts]:
    with ExitStack() as stack:
        yield Parts(stack)
