"""The clients of a load, as the load test drives them: start, wait, collect."""

from __future__ import annotations

import math
import queue
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import TypeAlias

from interfaces.messages import from_json, to_json
from loadtest.errors import LoadTestError
from loadtest.load.client_protocol import (
    FROM_CLIENTS,
    ClientConfig,
    End,
    Loaded,
    ProgressReport,
    RequestRow,
    RequestRows,
    Start,
    Stop,
)
from loadtest.load.images import LoadImage
from loadtest.load.live import Live
from loadtest.processes.child_process import ChildProcess, Lines
from loadtest.records.run import Record
from loadtest.settings import LoadSettings

_LOAD_TIMEOUT_S = 60.0
_COLLECT_TIMEOUT_S = 60.0
_CLIENTS_OF_ONE_PROCESS = 16
_CLIENTS_PER_PROCESS = 8
# Clients of one process take turns on its interpreter, and the answers to a batch arrive together.
_CLIENTS_PER_PROCESS_WITH_GPU = 2
# At twice as many a process would begin to lag.
_RATE_OF_ONE_PROCESS = 1000
# Every user has failed to connect several times in a row: the server is gone.
_HOPELESS_FAILURES_PER_USER = 4

_Kinds: TypeAlias = list[type | None]


def fitting_client_processes(clients: int, cores: int, *, with_gpu: bool) -> int:
    """How many processes so many clients should share.

    One process drives a few thousand requests a second, which is more than a server on a CPU
    answers. Where there are many clients no process gets more than eight of them, and on a GPU
    host, whose answers come within milliseconds, no more than two; but there are never more
    processes than half of the cores.

    Args:
        clients: closed-loop clients.
        cores: cores of this machine.
        with_gpu: whether the server may run on a GPU.
    """
    if clients <= _CLIENTS_OF_ONE_PROCESS and not with_gpu:
        return 1
    each = _CLIENTS_PER_PROCESS_WITH_GPU if with_gpu else _CLIENTS_PER_PROCESS
    return max(1, min(math.ceil(clients / each), cores // 2))


def fitting_generators(rate_per_s: float, cores: int) -> int:
    """How many processes should send an open loop: few, and no more than half of the cores."""
    return max(1, min(math.ceil(rate_per_s / _RATE_OF_ONE_PROCESS), cores // 2))


class ClientPool:
    """Client processes that take one load after the other; the context kills them.

    They load when they are made, so that they can do it while a server starts.
    """

    def __init__(self, processes: int) -> None:
        self.lines: Lines = queue.SimpleQueue()
        self.processes: list[ChildProcess] = []
        command = [sys.executable, "-m", "loadtest.load.client_process"]
        with ExitStack() as stack:
            for _ in range(processes):
                process = ChildProcess(command, "client process", self.lines)
                self.processes.append(stack.enter_context(process))
            self._stack = stack.pop_all()

    def close(self) -> None:
        """Kill them."""
        self._stack.close()

    def __enter__(self) -> ClientPool:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


class Clients:
    """The clients of one load; the context kills their processes, unless a pool keeps them.

    Args:
        settings: the load.
        images: what to send.
        expected_labels: image name to the label that it must get; other images may get any.
        pool: at least as many processes as the load has, all idle; None for processes of its own.
            After a load that did not end with `stop` the pool is of no use any more.

    Attributes:
        live: what the load is like just now; counts from zero when a window opens.
        right_images: once it was stopped: images that got their right answer in the window.
    """

    def __init__(
        self,
        settings: LoadSettings,
        images: Sequence[LoadImage],
        expected_labels: Mapping[str, str],
        pool: ClientPool | None = None,
    ) -> None:
        self._settings = settings
        self._names = [image.name for image in images]
        self._progress: dict[ChildProcess, ProgressReport] = {}
        self.live = Live(settings.request_batch)
        self._ended: set[ChildProcess] = set()
        self._records: list[Record] = []
        self.right_images = 0
        self._window_start_s = math.inf
        self._completed_before: dict[ChildProcess, int] = {}
        self._stack = ExitStack()
        count = min(settings.client_processes, settings.request_client)
        if pool is None:
            pool = self._stack.enter_context(ClientPool(count))
        self._lines = pool.lines
        self._processes = pool.processes[:count]
        first = 0
        for number, process in enumerate(self._processes):
            users = (settings.request_client + number) // count
            config = ClientConfig(
                load=settings,
                image_paths=[str(image.path) for image in images],
                expected_labels=[expected_labels.get(name) for name in self._names],
                users=users,
                first_user=first,
            )
            first += users
            process.write_line(to_json(config))

    @property
    def pids(self) -> list[int]:
        """Process ids of the clients."""
        return [process.pid for process in self._processes]

    @property
    def completed(self) -> int:
        """Requests completed since `start`, as of the last reports."""
        return sum(progress.completed for progress in self._progress.values())

    @property
    def failed(self) -> int:
        """How many of them failed."""
        return sum(progress.failed for progress in self._progress.values())

    def start(self) -> None:
        """Start the load in all processes; return when every client runs.

        Raises:
            LoadTestError: a client process ended, or is not there in time.
        """
        self._receive_until(
            lambda kinds: kinds.count(Loaded) == len(self._processes), _LOAD_TIMEOUT_S
        )
        for process in self._processes:
            process.write_line(to_json(Start()))
        self._receive_until(lambda _: self._running_users() == self._settings.request_client)

    def _running_users(self) -> int:
        return sum(progress.users for progress in self._progress.values())

    def open_window(self, start_s: float) -> None:
        """Count what completes from here on; `start_s` is on the monotonic clock."""
        self._window_start_s = start_s
        self._completed_before.clear()
        self.live = Live(self._settings.request_batch)

    @property
    def completed_in_window(self) -> int:
        """A lower bound of the requests completed since the window opened."""
        return sum(
            self._progress[process].completed - before
            for process, before in self._completed_before.items()
        )

    def wait(self, until_s: float, watch: Callable[[], None], completed: int | None = None) -> None:
        """Let the load run until a time, or until so many requests completed.

        Args:
            until_s: end on the monotonic clock (`time.perf_counter`).
            watch: called with every report of a client process (five a second); may raise.
            completed: requests in the window that end the wait earlier.

        Raises:
            LoadTestError: a client process ended, or no client reaches the server any more.
        """
        while (remaining_s := until_s - time.perf_counter()) > 0:
            if completed is not None and self.completed_in_window >= completed:
                return
            try:
                self._handle(*self._lines.get(timeout=remaining_s))
            except queue.Empty:
                return
            watch()
            self._refuse_lost_server()

    def _refuse_lost_server(self) -> None:
        if self._settings.arrivals_per_s is not None:
            return  # requests of an overload may all be late
        failures = sum(progress.connection_failures for progress in self._progress.values())
        if failures >= _HOPELESS_FAILURES_PER_USER * self._settings.request_client:
            error = next(p.last_error for p in self._progress.values() if p.last_error)
            raise LoadTestError(
                f"the server at {self._settings.host}:{self._settings.port} "
                f"no longer answers: {error}"
            )

    def stop(self, start_s: float, end_s: float) -> list[Record]:
        """End the load.

        Returns:
            The window's requests, as `Stop` takes them, in the order they completed.

        Raises:
            LoadTestError: a client process ended before it had told all.
        """
        command = to_json(Stop(start_s, end_s))
        for process in self._processes:
            process.write_line(command)
        self._records, self._window_start_s = [], start_s
        self._receive_until(
            lambda kinds: kinds.count(End) == len(self._processes), _COLLECT_TIMEOUT_S
        )
        return sorted(self._records, key=lambda record: record.completed_s)

    def _receive_until(
        self, done: Callable[[_Kinds], bool], timeout_s: float = _LOAD_TIMEOUT_S
    ) -> None:
        kinds: _Kinds = []
        deadline_s = time.perf_counter() + timeout_s
        while not done(kinds):
            try:
                remaining_s = max(0.0, deadline_s - time.perf_counter())
                kinds.append(self._handle(*self._lines.get(timeout=remaining_s)))
            except queue.Empty:
                raise LoadTestError(
                    f"a client process did not answer within {timeout_s:g} s"
                ) from None

    def _handle(self, process: ChildProcess, line: str | None) -> type | None:
        """Keep what a line tells; its kind, or None where a process ended that had told all."""
        if line is None:
            if process in self._ended:
                return None
            raise LoadTestError(f"a client process ended: {process.last_line}")
        message = from_json(line, FROM_CLIENTS)
        if isinstance(message, ProgressReport):
            self._progress[process] = message
            self.live.add(process, message)
            if message.at_s >= self._window_start_s:
                self._completed_before.setdefault(process, message.completed)
        elif isinstance(message, RequestRows):
            self._records.extend(map(self._record, message.rows))
        elif isinstance(message, End):
            self._ended.add(process)
            self.right_images += message.right_images
        return type(message)

    def _record(self, row: RequestRow) -> Record:
        return Record(
            completed_s=row.completed_s - self._window_start_s,
            latency_ms=row.latency_ms,
            image=";".join(self._names[image] for image in row.images),
            failed_images=row.failed_images,
            error=row.error,
            lag_ms=row.lag_ms,
        )

    def __enter__(self) -> Clients:
        return self

    def __exit__(self, *raised: object) -> None:
        self._stack.close()
