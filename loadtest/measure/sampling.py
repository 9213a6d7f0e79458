"""Samples of all metrics while the load runs."""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from collections.abc import Sequence

import psutil

from loadtest.records.metrics import METRICS, Metric
from loadtest.records.probe import Probe
from loadtest.records.run import Sample

SAMPLE_INTERVAL_S = 0.5


class Sampler:
    """Takes samples in a thread of its own while its context lasts."""

    def __init__(
        self,
        probe: Probe,
        metrics: Sequence[Metric] = METRICS,
        interval_s: float = SAMPLE_INTERVAL_S,
    ) -> None:
        self._probe = probe
        self._metrics = [metric for metric in metrics if metric.read is not None]
        self._interval_s = interval_s
        self._samples: list[Sample] = []
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)

    def sample(self) -> Sample:
        """Take a sample now; its time is that of the monotonic clock, in seconds."""
        with self._lock:
            self._probe.look()
            at_s = time.perf_counter()
            values = {m.name: m.read(self._probe) for m in self._metrics if m.read is not None}
            self._samples.append(Sample(at_s, values))
            return self._samples[-1]

    def samples(self, start_s: float) -> list[Sample]:
        """All samples so far, with times relative to `start_s` (negative before it)."""
        with self._lock:
            return [Sample(round(s.at_s - start_s, 6), s.values) for s in self._samples]

    def _run(self) -> None:
        while not self._stopped.wait(self._interval_s):
            self.sample()

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._stopped.set()
        self._thread.join()


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
