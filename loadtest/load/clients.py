"""The clients of a load, as the load test drives them: start, wait, collect."""

from __future__ import annotations

import math
import queue
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

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
from loadtest.load.pool import LoadProcess, Pool
from loadtest.processes.child_process import ChildProcess, Lines
from loadtest.records.metrics import rate_between
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

    def prepare(self, processes: Sequence[Any]) -> None:
        """They are ready."""

    def finish(self, processes: Sequence[Any]) -> None:
        """There is nothing to find out."""

    def start(self, processes: Sequence[Any], users: int) -> None:
        """Let each start its users."""
        del users  # each knows its own
        for process in processes:
            process.write_line(to_json(Start()))

    def clock_offset_s(self, process: Any) -> float:
        """None: they share this machine's clock."""
        del process
        return 0.0

    def why_lost(self, process: Any) -> str:
        """A fault of this program, with which nothing goes on."""
        raise LoadTestError(f"a client process ended: {process.last_line}")

    def facts(self, process: Any) -> dict[str, Any]:
        """Its number, from 1."""
        return {"worker": self.processes.index(process) + 1, "host": 1}

    def next(self, timeout_s: float) -> tuple[ChildProcess, str | None]:
        """What a process says next, None at its end; queue.Empty where nothing comes in time."""
        return self.lines.get(timeout=timeout_s)

    def pids(self, processes: Sequence[Any]) -> list[int]:
        """Their process ids."""
        return [process.pid for process in processes]

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
        lost: processes that ended in the window, with the reason; the load is not what it was.
        right_images: once it was stopped: images that got their right answer in the window.
    """

    def __init__(
        self,
        settings: LoadSettings,
        images: Sequence[LoadImage],
        expected_labels: Mapping[str, str],
        pool: Pool | None = None,
    ) -> None:
        self._settings = settings
        self._names = [image.name for image in images]
        self._progress: dict[LoadProcess, ProgressReport] = {}
        self._cpu_s: dict[LoadProcess, list[tuple[float, float]]] = {}
        self._users: dict[LoadProcess, int] = {}
        self.live = Live(settings.request_batch)
        self._loaded: set[LoadProcess] = set()
        self._ended: set[LoadProcess] = set()
        self.lost: dict[LoadProcess, str] = {}
        self._records: list[Record] = []
        self.right_images = 0
        self._window_start_s = math.inf
        self._completed_before: dict[LoadProcess, int] = {}
        self._stack = ExitStack()
        count = min(settings.client_processes, settings.request_client)
        self._pool: Pool = pool or self._stack.enter_context(ClientPool(count))
        self._processes = self._pool.processes[:count]
        self._facts = {process: self._pool.facts(process) for process in self._processes}
        self._pool.prepare(self._processes)
        for number, process in enumerate(self._processes):
            config = ClientConfig(
                load=settings,
                image_paths=[str(image.path) for image in images],
                expected_labels=[expected_labels.get(name) for name in self._names],
                users=len(range(number, settings.request_client, count)),
                first_user=number,
                user_step=count,
                clock_offset_s=self._pool.clock_offset_s(process),
            )
            process.write_line(to_json(config))

    @property
    def pids(self) -> list[int] | None:
        """Process ids of the clients; None where some run on other machines."""
        return self._pool.pids(self._processes)

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
        self._receive_until(lambda: len(self._loaded) == len(self._processes), _LOAD_TIMEOUT_S)
        self._pool.start(self._processes, self._settings.request_client)
        self._receive_until(lambda: self._running_users() == self._settings.request_client)
        self._users = {process: progress.users for process, progress in self._progress.items()}

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
        """Let the load run until a time, until so many requests completed, or one is lost.

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
                self._handle(*self._pool.next(remaining_s))
            except queue.Empty:
                return
            if self.lost:
                return
            watch()
            self._refuse_lost_server()
            self._refuse_lost_users()

    def _refuse_lost_users(self) -> None:
        """Fewer clients would be another load."""
        for process, users in self._users.items():
            if (found := self._progress[process].users) < users:
                raise LoadTestError(f"{process.title} has {found} of its {users} clients left")

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
            lambda: {*self._ended, *self.lost} == {*self._processes}, _COLLECT_TIMEOUT_S
        )
        self._pool.finish([process for process in self._processes if process not in self.lost])
        return sorted(self._records, key=lambda record: record.completed_s)

    def facts(self, start_s: float, end_s: float) -> list[dict[str, Any]]:
        """What each process did in the window, beside its requests, once the load was stopped.

        Returns:
            Of each its number ("worker"), that of its machine ("host"), "clients", "cpu_percent"
            of one core or None, and "lost", the reason why it ended early, or "".
        """
        return [
            {
                **self._pool.facts(process),
                "clients": self._users[process],
                "cpu_percent": self._cpu_percent(process, start_s, end_s),
                "lost": self.lost.get(process, ""),
            }
            for process in self._processes
        ]

    def _cpu_percent(self, process: LoadProcess, start_s: float, end_s: float) -> float | None:
        times_s, cpu_s = zip(*self._cpu_s[process], strict=True)
        # Nothing is known of a lost one after its last report.
        end_s = min(end_s, times_s[-1])
        if len(times_s) < 2 or end_s <= start_s:
            return None
        return 100 * rate_between(times_s, cpu_s, start_s, end_s)

    def _receive_until(self, done: Callable[[], bool], timeout_s: float = _LOAD_TIMEOUT_S) -> None:
        deadline_s = time.perf_counter() + timeout_s
        while not done():
            try:
                self._handle(*self._pool.next(max(0.0, deadline_s - time.perf_counter())))
            except queue.Empty:
                raise LoadTestError(
                    f"a client process did not answer within {timeout_s:g} s"
                ) from None

    def _handle(self, process: LoadProcess, line: str | None) -> None:
        """Keep what a line tells."""
        if line is None:
            if process in self._ended:
                return
            reason = self._pool.why_lost(process)
            if math.isinf(self._window_start_s) or process not in self._facts:
                raise LoadTestError(f"{process.title} {reason}")
            self.lost[process] = reason
            return
        message = from_json(line, FROM_CLIENTS)
        if isinstance(message, Loaded):
            self._loaded.add(process)
        elif isinstance(message, ProgressReport):
            self._progress[process] = message
            self._cpu_s.setdefault(process, []).append((message.at_s, message.cpu_s))
            self.live.add(process, message)
            if message.at_s >= self._window_start_s:
                self._completed_before.setdefault(process, message.completed)
        elif isinstance(message, RequestRows):
            worker = str(self._facts[process]["worker"])
            self._records.extend(self._record(row, worker) for row in message.rows)
        elif isinstance(message, End):
            self._ended.add(process)
            self.right_images += message.right_images

    def _record(self, row: RequestRow, worker: str) -> Record:
        return Record(
            completed_s=row.completed_s - self._window_start_s,
            latency_ms=row.latency_ms,
            image=";".join(self._names[image] for image in row.images),
            failed_images=row.failed_images,
            error=row.error,
            lag_ms=row.lag_ms,
            worker=worker,
        )

    def __enter__(self) -> Clients:
        return self

    def __exit__(self, *raised: object) -> None:
        self._stack.close()
