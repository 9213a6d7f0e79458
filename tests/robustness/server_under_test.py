"""The server that a run maltreats: its whole log is read, and all of its processes are watched."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from typing import Any

import psutil

from loadtest.measure.sampling import Sampler
from loadtest.records.metrics import HELD
from loadtest.records.probe import Probe
from loadtest.records.run import Sample
from loadtest.servers.server_process import ServerProcess, require_free_port, service_command
from tests.robustness import wire

HOST = "127.0.0.1"
_READY_TIMEOUT_S = 180.0
_KEPT_LINES = 40
_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_TRACEBACK = "Traceback (most recent call last)"


class ServerUnderTest(ServerProcess):
    """A real server process for the length of its context.

    Args:
        arguments: what stands behind `python -m service`, without host and port. One process serves
            unless they say otherwise.
        port: where it listens, on 127.0.0.1.

    Attributes:
        line_counts: log lines by level.
        tracebacks: of the log, each with the two lines before it.
        last_lines: of the log.
    """

    def __init__(self, arguments: Sequence[str], port: int) -> None:
        require_free_port(HOST, port)
        self.port = port
        self.line_counts: Counter[str] = Counter()
        self.tracebacks: list[list[str]] = []
        self.last_lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._traceback: list[str] | None = None
        command = service_command(["--workers", "1", *arguments], HOST, port)
        super().__init__(command, "the server", _READY_TIMEOUT_S)

    def on_line(self, line: str) -> None:
        """Count a line of the log, and keep tracebacks."""
        level = next((level for level in _LEVELS if level in line[:60]), "")
        self.line_counts[level or "continued"] += 1
        self.last_lines.append(line.rstrip())
        if _TRACEBACK in line:
            self._traceback = [*list(self.last_lines)[-2:]]
            self.tracebacks.append(self._traceback)
        elif level:
            self._traceback = None
        elif self._traceback is not None:
            self._traceback.append(line.rstrip())

    def is_alive(self) -> bool:
        """Whether its process runs."""
        return self.exit_code() is None

    def descriptors(self) -> int:
        """Open files and sockets of its processes now; 0 while one of them is ending."""
        probe = Probe(self.pid)
        probe.look()
        return int(probe.of_server(psutil.Process.num_fds) or 0)

    def worker_pids(self) -> list[int]:
        """Its child processes that run."""
        try:
            return [
                child.pid
                for child in psutil.Process(self.pid).children()
                if child.status() != psutil.STATUS_ZOMBIE
            ]
        except psutil.NoSuchProcess:
            return []


class Watch:
    """Samples what a server's processes hold and pings it, while it lasts.

    Args:
        server: the server.
        interval_s: between two samples, and between two pings.
        timeout_s: a ping without an answer in this time counts as a hang.

    Attributes:
        pings: seconds that each ping took; infinite where it got no answer in time.
        failures: what went wrong with those that were neither answered nor too late.
    """

    def __init__(self, server: ServerUnderTest, interval_s: float, timeout_s: float) -> None:
        self._server = server
        self._interval_s = interval_s
        self._timeout_s = timeout_s
        self._sampler = Sampler(Probe(server.pid), HELD, interval_s)
        self._stopped = threading.Event()
        self.pings: list[float] = []
        self.failures: list[str] = []
        self._thread = threading.Thread(target=self._ping_on, name="pings", daemon=True)

    @property
    def samples(self) -> list[Sample]:
        """What was held over time, without the moments at which a process was ending."""
        found = self._sampler.samples(self._started_s)
        return [sample for sample in found if None not in sample.values.values()]

    @property
    def rows(self) -> list[tuple[Any, ...]]:
        """The samples as rows of a table, whose columns are `USAGE_COLUMNS`."""
        return [(sample.at_s, *map(int, sample.values.values())) for sample in self.samples]

    @property
    def slowest_s(self) -> float:
        """What the slowest ping took; infinite without any."""
        return max(self.pings, default=float("inf"))

    def _ping_on(self) -> None:
        self._ping()
        while not self._stopped.wait(self._interval_s):
            self._ping()

    def _ping(self) -> None:
        before_s = time.monotonic()
        try:
            wire.exchange(self._server.port, wire.call(b"ping", 1), self._timeout_s)
            self.pings.append(time.monotonic() - before_s)
        except TimeoutError:
            self.pings.append(float("inf"))
        except (OSError, EOFError, wire.WireError) as error:
            self.failures.append(f"{type(error).__name__}: {error}")

    def __enter__(self) -> Watch:
        self._started_s = self._sampler.sample().at_s
        self._sampler.__enter__()
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._stopped.set()
        self._thread.join()
        self._sampler.__exit__(*raised)


USAGE_COLUMNS = ("at_s", *(metric.name for metric in HELD))
