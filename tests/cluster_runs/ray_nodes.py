"""A Ray cluster of several nodes on this machine: each is what `ray start` starts."""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil

from loadtest.errors import LoadTestError
from loadtest.processes.child_process import ChildProcess

HEAD = "head"
MEMORY, ROCKSDB = "memory", "rocksdb"
"""Where the head keeps what it knows of the cluster: what is in memory is lost with it."""

_STARTED = "Ray runtime started"
_START_TIMEOUT_S = 300.0
_OBJECT_STORE_BYTES = 80_000_000
_ENVIRONMENT = {
    # Slow machines: nodes are a minute late where several start.
    "RAY_raylet_start_wait_time_s": "240",
    "RAY_USAGE_STATS_ENABLED": "0",
    # A token of this user's, which another cluster may have made, is none of this one's.
    "RAY_AUTH_MODE": "disabled",
    "RAY_DISABLE_IMPORT_WARNING": "1",
    # A node whose head is away waits for it for so long, and then ends.
    "RAY_gcs_rpc_server_reconnect_timeout_s": "120",
    # How soon the head takes a node that says nothing for dead.
    "RAY_health_check_initial_delay_ms": "2000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
}


class RayNode:
    """One node: `ray start`, and all that it starts.

    Args:
        command: what stands behind `ray start`.
        title: what error messages call it.

    Raises:
        LoadTestError: it does not start.
    """

    def __init__(self, command: list[str], title: str) -> None:
        ray = [sys.executable, "-m", "ray.scripts.scripts", "start"]
        self._process = ChildProcess([*ray, *command], title, merge_stderr=True)
        end_s = time.monotonic() + _START_TIMEOUT_S
        overdue = f"did not start within {_START_TIMEOUT_S:g} s"
        try:
            while (line := self._process.next_line(end_s, overdue)) is not None:
                if _STARTED in line:
                    return
            raise LoadTestError(self._process.ended(" before it had started"))
        except BaseException:
            self._process.close()
            raise

    def processes(self) -> list[psutil.Process]:
        """All of its processes that run: of Ray, and what Ray has started."""
        with suppress(psutil.NoSuchProcess):
            return [*psutil.Process(self._process.pid).children(recursive=True)]
        return []

    def kill(self) -> None:
        """End all of it at once, as a power cut does."""
        left = self.processes()
        # First the one that would tell the head that it goes.
        for process in sorted(left, key=lambda one: one.name() != "raylet"):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, timeout=_START_TIMEOUT_S)
        self._process.close()


class RayNodes:
    """A head, and nodes with room for replicas, while the context lasts.

    Args:
        folder: for Ray's sessions; a short path, since sockets lie there.
        port: of the head.
        cpus: Ray's count of cores of each node, which says how many replicas it takes.
        storage: MEMORY or ROCKSDB.
        head_cpus: the same of the head, for a cluster that has no other node.
    """

    def __init__(
        self, folder: Path, port: int, cpus: int, storage: str = MEMORY, head_cpus: int = 0
    ) -> None:
        self._folder = folder
        self._port = port
        self.cpus = cpus
        self._storage = storage
        self._head_cpus = head_cpus
        self._started = 0
        self.head: RayNode | None = None
        self.nodes: dict[str, RayNode] = {}

    @property
    def address(self) -> str:
        """Of the head, for `--cluster`."""
        return f"127.0.0.1:{self._port}"

    def start_head(self) -> None:
        """Start the head, or start it again where it was killed."""
        storage = self._folder / "gcs"
        storage.mkdir(exist_ok=True)
        # Ray takes the nodes' processes for a head that still runs where this names it.
        (self._folder / "ray_current_cluster").unlink(missing_ok=True)
        os.environ.update(_ENVIRONMENT)
        if self._storage == ROCKSDB:
            os.environ.update(
                {"RAY_gcs_storage": ROCKSDB, "RAY_gcs_storage_path": str(storage)},
            )
        self.head = RayNode(
            [
                "--head",
                *("--port", str(self._port), "--num-cpus", str(self._head_cpus)),
                "--include-dashboard=false",
                *("--temp-dir", str(self._folder)),
                *self._common(0),
            ],
            "Ray's head",
        )

    def add(self) -> str:
        """Start one more node; its name."""
        self._started += 1
        number = self._started
        name = f"node-{number}"
        self.nodes[name] = RayNode(
            [
                *("--address", self.address, "--num-cpus", str(self.cpus)),
                *self._common(number),
            ],
            name,
        )
        return name

    def kill(self, name: str) -> None:
        """Kill a node, or the head."""
        if name == HEAD:
            assert self.head is not None
            self.head.kill()
            self.head = None
        else:
            self.nodes.pop(name).kill()

    def processes(self) -> list[psutil.Process]:
        """Those of all nodes."""
        nodes = [*self.nodes.values(), *([self.head] if self.head else [])]
        return [process for node in nodes for process in node.processes()]

    def _common(self, number: int) -> list[str]:
        return [
            # Whichever are free: nodes of one machine would take each other's.
            *("--min-worker-port", "0", "--max-worker-port", "0"),
            *("--node-ip-address", f"127.0.0.{number + 1}"),
            *("--object-store-memory", str(_OBJECT_STORE_BYTES)),
            "--disable-usage-stats",
            "--block",
        ]

    def __enter__(self) -> RayNodes:
        return self

    def __exit__(self, *raised: object) -> None:
        for name in [*self.nodes, *([HEAD] if self.head else [])]:
            self.kill(name)
