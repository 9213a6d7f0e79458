"""What the processes and the machine use while the load runs.

Every sample holds counters that only grow (CPU seconds), so that the mean over any window is a
difference of two readings and no peak between two samples is lost.
"""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from collections.abc import Sequence
from types import TracebackType

import psutil

from loadtest.gpu import GpuMonitor
from loadtest.measured_run import Sample

SAMPLE_INTERVAL_S = 0.5


class Sampler:
    """Takes samples in a thread of its own while its context lasts.

    Args:
        server_pid: root of the server's process tree, or None where it cannot be seen from here.
        client_pids: the client processes.
        gpus: the GPUs to read.
    """

    def __init__(
        self, server_pid: int | None, client_pids: Sequence[int], gpus: GpuMonitor
    ) -> None:
        self._server = None if server_pid is None else psutil.Process(server_pid)
        self._clients = [psutil.Process(pid) for pid in client_pids]
        self._own = psutil.Process()
        self._gpus = gpus
        self._samples: list[Sample] = []
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)

    def sample(self) -> float:
        """Take a sample now.

        Returns:
            Its time on the monotonic clock, in seconds.
        """
        with self._lock:
            machine = psutil.cpu_times()
            server_cpu_s, server_rss_bytes = _tree_usage(self._server)
            sample = Sample(
                at_s=time.perf_counter(),
                server_cpu_s=server_cpu_s,
                server_rss_bytes=server_rss_bytes,
                clients_cpu_s=sum(_cpu_s(process) for process in self._clients),
                own_cpu_s=_cpu_s(self._own),
                # What processes used, of which Linux counts guests' time as user time. Interrupts
                # are nobody's: most of them carry the load's own packets over the loopback device.
                machine_busy_s=machine.user + machine.nice + machine.system,
                machine_steal_s=machine.steal,
                gpus=self._gpus.read(),
            )
            self._samples.append(sample)
            return sample.at_s

    def samples(self, start_s: float) -> list[Sample]:
        """All samples so far, with times relative to `start_s` (negative before it)."""
        with self._lock:
            return [sample.relative_to(start_s) for sample in self._samples]

    def _run(self) -> None:
        while not self._stopped.wait(SAMPLE_INTERVAL_S):
            self.sample()

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stopped.set()
        self._thread.join()


def _tree_usage(root: psutil.Process | None) -> tuple[float | None, int | None]:
    """CPU seconds and resident bytes of a process and all its descendants."""
    if root is None:
        return None, None
    cpu_s, rss_bytes = 0.0, 0
    try:
        for process in [root, *root.children(recursive=True)]:
            cpu_s += _cpu_s(process)
            rss_bytes += _rss_bytes(process)
    except psutil.NoSuchProcess:
        return None, None
    return cpu_s, rss_bytes


def _cpu_s(process: psutil.Process) -> float:
    """CPU seconds of a process and of its children that have ended; 0 once it is gone itself."""
    try:
        times = process.cpu_times()
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return 0.0
    return float(times.user + times.system + times.children_user + times.children_system)


def _rss_bytes(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return 0


def local_server_pid(host: str, port: int, claimed_pid: int) -> int | None:
    """The server's pid if its process can be sampled from here, else None.

    A pid from `server_info` means nothing on another machine or in another container, so the
    process (or a child of it) must listen on the port here.
    """
    if not _is_this_machine(host):
        return None
    try:
        root = psutil.Process(claimed_pid)
        for process in [root, *root.children(recursive=True)]:
            for connection in process.net_connections(kind="tcp"):
                if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port:
                    return claimed_pid
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return None
    return None


def _is_this_machine(host: str) -> bool:
    own = {
        address.address.partition("%")[0]
        for addresses in psutil.net_if_addrs().values()
        for address in addresses
    }
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    return any(address in own or ipaddress.ip_address(address).is_loopback for address in found)
