"""A server on a Ray cluster, as it is maltreated: nodes, replicas and front ends."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import psutil

from loadtest.errors import LoadTestError
from loadtest.servers.server_process import ServerProcess, require_free_port, service_command
from tests.cluster_runs.ray_nodes import RayNodes
from tests.robustness import wire
from tests.robustness.checking_clients import wait_until

HOST = "127.0.0.1"
_READY_TIMEOUT_S = 300.0
_ANSWER_S = 5.0
_WORKERS_OF_STATS, _PID, _WHY_NOT_READY = 16, 2, 3
_REPLICA_TITLE = "ServeReplica"
_Self = TypeVar("_Self", bound="ServedCluster")


class FrontEnd(ServerProcess):
    """A front end, and the end of its log.

    Args:
        arguments: of the service.
        port: where it listens.
        log: file that gets its log.
    """

    def __init__(self, arguments: Sequence[str], port: int, log: Path) -> None:
        require_free_port(HOST, port)
        self.port = port
        self._log = log.open("a", encoding="utf-8")
        super().__init__(
            service_command(arguments, HOST, port), f"the front end at {port}", _READY_TIMEOUT_S
        )

    def on_line(self, line: str) -> None:
        """Keep it."""
        self._log.write(line)
        self._log.flush()

    def is_alive(self) -> bool:
        """Whether it runs."""
        return self.exit_code() is None

    def kill(self) -> None:
        """End it without a word."""
        os.kill(self.pid, signal.SIGKILL)


class ServedCluster:
    """Nodes with replicas, and front ends before them, while the context lasts.

    Args:
        nodes: the Ray cluster, which runs.
        arguments: of the service, without how many replicas there are.
        replicas: how many.
        ports: of the front ends.
        logs: folder for their logs.
    """

    def __init__(
        self,
        nodes: RayNodes,
        arguments: Sequence[str],
        replicas: int,
        ports: Sequence[int],
        logs: Path,
    ) -> None:
        self.nodes = nodes
        self.replicas = replicas
        self.ports = ports
        self._arguments = [
            *(*arguments, "--cluster", nodes.address),
            *("--replicas", str(replicas)),
        ]
        self._logs = logs
        self.front_ends: dict[int, FrontEnd] = {}

    def start(self) -> None:
        """Start the front ends; the first one has the replicas placed."""
        for port in self.ports:
            self.start_front_end(port)
            self.front_ends[port].wait_ready()

    def start_front_end(self, port: int) -> None:
        """Start one, or start it again."""
        log = self._logs / f"front-end-{port}.log"
        self.front_ends[port] = FrontEnd([*self._arguments, *self.own_arguments(port)], port, log)

    def own_arguments(self, port: int) -> Sequence[str]:
        """Arguments of the front end at that port alone."""
        del port
        return ()

    def room(self) -> int:
        """How many replicas there is room for."""
        return len(self.nodes.nodes) * self.nodes.cpus

    def replica_processes(self) -> list[psutil.Process]:
        """The processes of replicas on all nodes."""
        return [
            process
            for process in self.nodes.processes()
            if _REPLICA_TITLE in " ".join(_command_of(process))
        ]

    def serving(self, port: int) -> int:
        """How many ready replicas that run it knows; 0 where it does not answer."""
        try:
            reply = wire.exchange(port, wire.call(b"stats", 1), _ANSWER_S)
        except (OSError, EOFError, wire.WireError):
            return 0
        workers = reply.fields.get(0, {}).get(_WORKERS_OF_STATS, [])
        # A front end shows what a replica that is gone told last, until it hears of its end.
        alive = {process.pid for process in self.replica_processes()}
        return sum(worker[_PID] in alive and not worker.get(_WHY_NOT_READY) for worker in workers)

    def wait_for(self, replicas: int, timeout_s: float) -> bool:
        """Whether every front end knows so many ready replicas within that time."""
        return wait_until(
            lambda: all(self.serving(port) == replicas for port in self.ports), timeout_s, 0.5
        )

    def stop(self) -> list[int]:
        """End the front ends as an operator would; their exit codes."""
        return [one.terminate() for one in self.front_ends.values()]

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(self, *raised: object) -> None:
        for one in self.front_ends.values():
            one.__exit__(*raised)


def _command_of(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


def wait_gone(process: psutil.Process, timeout_s: float) -> bool:
    """Whether a process ended within that time."""
    try:
        process.wait(timeout_s)
    except psutil.TimeoutExpired:
        return False
    return True


def require(condition: bool, what: str) -> None:
    """Raise LoadTestError unless it is so: what the run is about cannot be shown then."""
    if not condition:
        raise LoadTestError(what)


def pause_s(until_s: float) -> None:
    """Wait until then, on the monotonic clock."""
    time.sleep(max(0.0, until_s - time.monotonic()))
