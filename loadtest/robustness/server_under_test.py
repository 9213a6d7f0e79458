"""The server that a run maltreats: its whole log is read, and all of its processes are watched."""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType

import psutil

from loadtest.child_process import ChildProcess
from loadtest.errors import LoadTestError
from loadtest.robustness import wire
from loadtest.server_process import require_free_port

_READY_TIMEOUT_S = 180.0
_STOP_TIMEOUT_S = 60.0
_KEPT_LINES = 40
_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_TRACEBACK = "Traceback (most recent call last)"


@dataclass(frozen=True)
class Usage:
    """What the server's processes hold at one time.

    Attributes:
        at_s: seconds since the samples began.
        rss_bytes: resident memory.
        descriptors: open files and sockets.
        threads: threads.
        processes: processes.
    """

    at_s: float
    rss_bytes: int
    descriptors: int
    threads: int
    processes: int


class ServerUnderTest:
    """A real server process for the length of its context.

    Args:
        arguments: what stands behind `python -m service`, without host and port.
        port: where it listens, on 127.0.0.1.
    """

    def __init__(self, arguments: Sequence[str], port: int) -> None:
        require_free_port("127.0.0.1", port)
        self.port = port
        self.arguments = tuple(arguments)
        self._log_lines: queue.SimpleQueue[tuple[ChildProcess, str | None]] = queue.SimpleQueue()
        command = [sys.executable, "-m", "service", *arguments, "--port", str(port)]
        self._process = ChildProcess(command, "the server", self._log_lines, merge_stderr=True)
        self._ready = threading.Event()
        self._has_ended = False
        self.line_counts: Counter[str] = Counter()
        self.tracebacks: list[list[str]] = []
        self.last_lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._reader = threading.Thread(target=self._read_log, name="server log", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Process id of the server, of the supervisor where it has workers."""
        return self._process.pid

    def _read_log(self) -> None:
        inside: list[str] | None = None
        while (line := self._log_lines.get()[1]) is not None:
            if "ready: " in line:
                self._ready.set()
            level = next((level for level in _LEVELS if level in line[:60]), "")
            self.line_counts[level or "continued"] += 1
            self.last_lines.append(line.rstrip())
            if _TRACEBACK in line:
                inside = [*list(self.last_lines)[-2:]]
                self.tracebacks.append(inside)
            elif level:
                inside = None
            elif inside is not None:
                inside.append(line.rstrip())
        self._has_ended = True
        self._ready.set()

    def wait_ready(self) -> None:
        """Wait for the line that says so.

        Raises:
            LoadTestError: it ended before, or the time is over.
        """
        if not self._ready.wait(_READY_TIMEOUT_S) or self._has_ended:
            raise LoadTestError(
                f"the server was not ready (exit code {self._process.wait(1.0)}); its last line: "
                f"{self._process.last_line}"
            )

    def is_alive(self) -> bool:
        """Whether its process runs."""
        return self._process.exit_code() is None

    def exit_code(self) -> int | None:
        """The exit code, None while it runs."""
        return self._process.exit_code()

    def usage(self, started_s: float) -> Usage | None:
        """What all of its processes hold now; None while one of them is ending."""
        rss_bytes = descriptors = threads = 0
        try:
            root = psutil.Process(self.pid)
            tree = [root, *root.children(recursive=True)]
            for process in tree:
                with process.oneshot():
                    rss_bytes += process.memory_info().rss
                    descriptors += process.num_fds()
                    threads += process.num_threads()
        except (psutil.NoSuchProcess, psutil.ZombieProcess, psutil.AccessDenied):
            return None
        at_s = time.monotonic() - started_s
        return Usage(at_s, rss_bytes, descriptors, threads, len(tree))

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

    def stop(self) -> int:
        """Send SIGTERM and wait; the exit code."""
        code = self._process.terminate(_STOP_TIMEOUT_S)
        self._reader.join(_STOP_TIMEOUT_S)
        return code

    def __enter__(self) -> ServerUnderTest:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.close()


class Watch:
    """Samples a server's usage and pings it, each in a thread of its own, while it lasts.

    Args:
        server: whom to watch.
        interval_s: between two samples, and between two pings.
        timeout_s: a ping without an answer in this time counts as a hang.

    Attributes:
        samples: the usage over time.
        pings: seconds that each ping took; infinite where it got no answer in time.
        failures: what went wrong with those that were neither answered nor too late.
    """

    def __init__(self, server: ServerUnderTest, interval_s: float, timeout_s: float) -> None:
        self._server = server
        self._interval_s = interval_s
        self._timeout_s = timeout_s
        self._started_s = time.monotonic()
        self._stopped = threading.Event()
        self.samples: list[Usage] = []
        self.pings: list[float] = []
        self.failures: list[str] = []
        self._threads = [
            threading.Thread(target=self._repeat, args=(what,), name=what.__name__, daemon=True)
            for what in (self._sample, self._ping)
        ]

    def _repeat(self, what: Callable[[], None]) -> None:
        what()
        while not self._stopped.wait(self._interval_s):
            what()

    def _sample(self) -> None:
        usage = self._server.usage(self._started_s)
        if usage is not None:
            self.samples.append(usage)

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
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()
