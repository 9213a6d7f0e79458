"""The master of Locust's distributed mode, and its workers: here, on other machines, or both."""

from __future__ import annotations

import ipaddress
import queue
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from interfaces.messages import from_json, to_json
from loadtest.errors import LoadTestError, UsageError
from loadtest.load.client_protocol import (
    FROM_MASTER,
    Clock,
    Clocks,
    CompareClocks,
    FromWorker,
    Gone,
    Hello,
    Joined,
    Left,
    Listening,
    MasterSetup,
    Refused,
    Spawn,
    ToWorker,
)
from loadtest.load.images import LoadImage
from loadtest.load.joining import said_by_worker, start_worker
from loadtest.processes.child_process import ChildProcess, Lines
from loadtest.progress import Progress
from loadtest.records.machine import machine_id, own_version

_START_TIMEOUT_S = 60.0
# As long as Locust's workers look for their master.
_JOIN_TIMEOUT_S = 300.0
_CLOCKS_TIMEOUT_S = 60.0
_END_TIMEOUT_S = 10.0
_NAMED_IMAGES = 3
_PROGRAM = [sys.executable, "-m", "loadtest.load.master_process"]


@dataclass(frozen=True)
class Spread:
    """How a load is spread over workers.

    Attributes:
        host: address where the master listens.
        port: of it; 0 for a free one.
        workers: how many there must be.
        starts_them: whether they are started here, and end with this process.
    """

    host: str
    port: int
    workers: int
    starts_them: bool


class Worker:
    """A worker that has joined.

    Attributes:
        number: from 1, in the order they were taken; names it in results.
        master_number: what the master calls it.
        host: number of its machine, likewise.
        hello: what it says of itself.
        is_here: whether it runs on this machine.
        clock: its clock beside this one's, before the load.
        drift_s: how much the offset had changed after it.
        lost: why it is gone, or "".
    """

    def __init__(
        self, number: int, master_number: int, host: int, hello: Hello, pool: WorkerPool
    ) -> None:
        self.number = number
        self.master_number = master_number
        self.host = host
        self.hello = hello
        self.is_here = hello.machine_id == machine_id()
        self.clock = Clock(number, 0.0, 0.0)
        self.drift_s = 0.0
        self.lost = ""
        self._pool = pool

    @property
    def title(self) -> str:
        """What messages call it."""
        return f"worker {self.number} on {self.hello.host_name}"

    def write_line(self, line: str) -> None:
        """Send it a message."""
        self._pool.tell(ToWorker(self.master_number, line))


class WorkerPool:
    """A master and its workers, which take one load after the other; the context ends them.

    It is a pool of processes as `Clients` drives them. Where one is lost, it is of no further use.

    Args:
        spread: how many there are, and where.
        is_open: whether the loads are open loops.
        images: what each of them must have, too.
        server_host: where the server is, which all of them must reach by that name.
        progress: shows who has joined.

    Raises:
        UsageError: the master cannot listen there, or the server is elsewhere to a worker.
        LoadTestError: not enough workers join in time; one with other images is refused.
    """

    def __init__(
        self,
        spread: Spread,
        images: Sequence[LoadImage],
        server_host: str,
        progress: Progress,
        *,
        is_open: bool,
    ) -> None:
        self._lines: Lines = queue.SimpleQueue()
        self._server_host = server_host
        self._images = [[image.name, image.sha256] for image in images]
        self.processes: list[Worker] = []
        self._by_number: dict[int, Worker] = {}
        self._children: list[ChildProcess] = []
        with ExitStack() as stack:
            self._master = ChildProcess(_PROGRAM, "the master", self._lines)
            stack.enter_context(self._master)
            children = stack.enter_context(ExitStack())
            # Workers on other machines would wait for a master that was killed.
            stack.callback(self._end)
            self._master.write_line(to_json(MasterSetup(spread.host, spread.port, is_open)))
            place = f"{spread.host}:{self._listening(spread)}"
            if spread.starts_them:
                port = int(place.rpartition(":")[2])
                for _ in range(spread.workers):
                    process = start_worker(spread.host, port, images, self._lines)
                    self._children.append(children.enter_context(process))
            else:
                plural = "" if spread.workers == 1 else "s"
                progress.line(
                    f"waiting for {spread.workers} worker{plural} at {place}: "
                    f"`python -m loadtest run --worker HOST:{place.rpartition(':')[2]}`"
                )
            self._join(spread.workers, progress)
            self._stack = stack.pop_all()

    def _listening(self, spread: Spread) -> int:
        """The port, once the master listens."""
        said = self._message(time.monotonic() + _START_TIMEOUT_S)
        if not isinstance(said, Listening):
            raise LoadTestError(f"the master said {type(said).__name__} before it listened")
        if said.problem:
            place = f"{spread.host}:{spread.port}"
            raise UsageError(f"--master cannot listen at {place}: {said.problem}")
        return said.port

    def _join(self, workers: int, progress: Progress) -> None:
        deadline_s = time.monotonic() + _JOIN_TIMEOUT_S
        while len(self.processes) < workers:
            progress.update(
                f"waiting for workers: {len(self.processes)} of {workers}",
                len(self.processes) / workers,
            )
            said = self._message(deadline_s)
            if isinstance(said, Left) and (worker := self._by_number.get(said.worker)):
                raise LoadTestError(f"{worker.title} {said.reason} before the load")
            if not isinstance(said, Joined):
                continue
            number, host = len(self.processes) + 1, self._host_number(said.hello)
            worker = Worker(number, said.worker, host, said.hello, self)
            if not worker.is_here and is_loopback(self._server_host):
                raise UsageError(
                    f"--host {self._server_host} is another machine to {worker.title}; name the "
                    "server's machine as all of them know it"
                )
            if problem := self._why_unfit(said.hello):
                # Once it is right, it may be started again.
                worker.write_line(to_json(Refused(problem)))
                progress.line(f"a worker on {said.hello.host_name} is refused: {problem}")
                continue
            self.processes.append(worker)
            self._by_number[said.worker] = worker
            if not self._children:
                progress.line(f"{worker.title} has joined ({len(self.processes)} of {workers})")
        # Half of them are those of as few hosts as can be.
        self.processes.sort(key=lambda worker: (worker.host, worker.number))

    def _host_number(self, hello: Hello) -> int:
        known = list(dict.fromkeys(worker.hello.machine_id for worker in self.processes))
        if hello.machine_id in known:
            return known.index(hello.machine_id) + 1
        return len(known) + 1

    def _why_unfit(self, hello: Hello) -> str:
        """Why a worker cannot take part; "" where it can."""
        if hello.version != own_version():
            return f"it is version {hello.version}, and the master {own_version()}"
        if hello.images == self._images:
            return ""
        here, there = (
            {image[0]: image[1] for image in own} for own in (self._images, hello.images)
        )
        other = [name for name in here if there.get(name) != here[name]]
        other += [name for name in there if name not in here]
        names = ", ".join(other[:_NAMED_IMAGES])
        more = f" and {len(other) - _NAMED_IMAGES} more" if len(other) > _NAMED_IMAGES else ""
        return (
            f"it has other images than the master ({names}{more}); give both the same files with "
            "--img_dir"
        )

    @property
    def hosts(self) -> list[dict[str, Any]]:
        """The machines of the workers, as result files have them: each with its number, "host"."""
        machines = {worker.host: worker.hello.machine for worker in self.processes}
        return [{"host": host, **machine} for host, machine in sorted(machines.items())]

    def tell(self, message: Any) -> None:
        """Send a message to the master."""
        self._master.write_line(to_json(message))

    def _message(self, deadline_s: float) -> Any:
        """What the master says next; that a worker of this process has ended, as `Left`."""
        while True:
            try:
                source, line = self._lines.get(timeout=max(0.0, deadline_s - time.monotonic()))
            except queue.Empty:
                there = ", ".join(worker.title for worker in self.processes) or "none has joined"
                raise LoadTestError(f"the workers did not answer in time; {there}") from None
            if source is self._master:
                if line is None:
                    raise LoadTestError(self._master.ended())
                return from_json(line, FROM_MASTER)
            if (left := self._of_child(source, line)) is not None:
                return left

    def _of_child(self, child: ChildProcess, line: str | None) -> Left | None:
        """What a worker of this process says to it, which matters where it ends."""
        if line is not None:
            said = said_by_worker(line)
            return self._left(child, said.reason) if isinstance(said, Gone) else None
        return self._left(child, child.ended())

    def _left(self, child: ChildProcess, reason: str) -> Left:
        number = next(
            (w.master_number for w in self.processes if w.is_here and w.hello.pid == child.pid), 0
        )
        if not number:
            raise LoadTestError(f"a worker ended before it had joined: {reason}")
        return Left(number, f"has ended: {reason}")

    def prepare(self, workers: Sequence[Worker]) -> None:
        """Compare the clocks of those that take the next load with this one's.

        Raises:
            LoadTestError: one of them is lost.
        """
        for clock, worker in self._compared(workers):
            worker.clock = clock
        if lost := [worker for worker in workers if worker.lost]:
            raise LoadTestError(f"{lost[0].title} {lost[0].lost}")

    def finish(self, workers: Sequence[Worker]) -> None:
        """Compare them again; one that is lost by now has told all that there is."""
        for clock, worker in self._compared(workers):
            worker.drift_s = clock.offset_s - worker.clock.offset_s

    def _compared(self, workers: Sequence[Worker]) -> list[tuple[Clock, Worker]]:
        self.tell(CompareClocks([worker.master_number for worker in workers]))
        deadline_s = time.monotonic() + _CLOCKS_TIMEOUT_S
        while not isinstance(said := self._message(deadline_s), Clocks):
            self._lose_or_refuse(said)
        return [(clock, self._by_number[clock.worker]) for clock in said.clocks]

    def start(self, workers: Sequence[Worker], users: int) -> None:
        """Let Locust start the users."""
        self.tell(Spawn([worker.master_number for worker in workers], users))

    def next(self, timeout_s: float) -> tuple[Worker, str | None]:
        """What a worker says next; None for one that is lost.

        Raises:
            queue.Empty: nothing within that time.
            LoadTestError: the master ended.
        """
        deadline_s = time.monotonic() + timeout_s
        while True:
            source, line = self._lines.get(timeout=max(0.0, deadline_s - time.monotonic()))
            if source is not self._master:
                said: Any = self._of_child(source, line)
            elif line is None:
                raise LoadTestError(self._master.ended())
            else:
                said = from_json(line, FROM_MASTER)
            if isinstance(said, FromWorker):
                if (worker := self._by_number.get(said.worker)) is not None:
                    return worker, said.text
            elif (lost := self._lose_or_refuse(said)) is not None:
                return lost, None

    def _lose_or_refuse(self, said: Any) -> Worker | None:
        """The worker that is lost, where one is; a further one that joins is refused."""
        if isinstance(said, Joined):
            refusal = Refused("the master has all of its workers")
            self.tell(ToWorker(said.worker, to_json(refusal)))
            return None
        # Also those that were refused leave, and one that ended here is silent to the master.
        worker = self._by_number.get(said.worker) if isinstance(said, Left) else None
        if worker is None or worker.lost:
            return None
        worker.lost = said.reason
        return worker

    def clock_offset_s(self, worker: Worker) -> float:
        """What its clock shows more."""
        return worker.clock.offset_s

    def why_lost(self, worker: Worker) -> str:
        """Why it is gone."""
        return worker.lost

    def facts(self, worker: Worker) -> dict[str, Any]:
        """Its number, that of its machine, and its clock beside this one's, in ms."""
        return {
            "worker": worker.number,
            "host": worker.host,
            "clock_offset_ms": worker.clock.offset_s * 1000,
            "clock_within_ms": worker.clock.within_s * 1000,
            "clock_drift_ms": worker.drift_s * 1000,
        }

    def pids(self, workers: Sequence[Worker]) -> list[int] | None:
        """Process ids of the master and of the workers; None where some run elsewhere."""
        if not all(worker.is_here for worker in workers):
            return None
        return [self._master.pid, *(worker.hello.pid for worker in workers)]

    def _end(self) -> None:
        """Let the master tell its workers that all is over."""
        self._master.close_input()
        deadline_s = time.monotonic() + _END_TIMEOUT_S
        for process in (self._master, *self._children):
            process.wait(max(0.0, deadline_s - time.monotonic()))

    def close(self) -> None:
        """End them."""
        self._stack.close()

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


def is_loopback(host: str) -> bool:
    """Whether a name stands for the machine itself, whichever asks."""
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    return all(ipaddress.ip_address(address).is_loopback for address in found)
