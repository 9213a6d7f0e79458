"""What the load test and its client processes say to each other: one JSON line a message."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from loadtest.settings import LoadSettings

PROGRESS_INTERVAL_S = 0.2
RECORDS_PER_LINE = 2000
# Messages of this program among those of Locust's master and its workers.
HELLO, MESSAGE, CLOCK = "thriftpipe_hello", "thriftpipe", "thriftpipe_clock"
LATENCIES_PER_REPORT = 100
"""At most; they tell a waiting user the TP99 of the last seconds."""


@dataclass(frozen=True)
class ClientConfig:
    """The part of the load that one client process sends.

    Attributes:
        load: the whole load.
        image_paths: files to send.
        expected_labels: for each file the label that it must get, or None where any will do.
        users: closed-loop clients, or generators of an open loop, in this process.
        first_user: number of the first of them; numbers are unique over all processes.
        user_step: from one number to the next.
        clock_offset_s: what this process's monotonic clock shows more than the load test's, which
            all times in messages are of; 0 on one machine.
    """

    load: LoadSettings
    image_paths: list[str]
    expected_labels: list[str | None]
    users: int
    first_user: int
    user_step: int = 1
    clock_offset_s: float = 0.0


@dataclass(frozen=True)
class Loaded:
    """The client process has its images and waits for `Start`."""


@dataclass(frozen=True)
class Start:
    """All users are to start."""


@dataclass(frozen=True)
class ProgressReport:
    """What a client process tells every `PROGRESS_INTERVAL_S`, counted since `Start`.

    Attributes:
        at_s: when, on the monotonic clock that all processes of a machine share.
        users: users that run.
        completed: requests that completed.
        failed: how many of them have an error.
        connection_failures: since the last answer.
        last_error: of the last failed request.
        recent_ms: latencies of some requests that were answered since the last report.
        cpu_s: CPU time of the process so far.
    """

    at_s: float
    users: int
    completed: int
    failed: int
    connection_failures: int
    last_error: str
    recent_ms: list[float] = field(default_factory=list)
    cpu_s: float = 0.0


@dataclass(frozen=True)
class Stop:
    """The load is to end, and the window's requests are to be told.

    To a closed loop's window belong the requests that completed in it, to an open loop's those that
    were to be sent in it, so that no slow one is left out.

    Attributes:
        start_s: start of the window on the monotonic clock.
        end_s: its end.
    """

    start_s: float
    end_s: float

    def takes(self, row: RequestRow, *, is_open: bool) -> bool:
        """Whether a request belongs to the window."""
        at_s = row.completed_s - row.latency_ms / 1000 if is_open else row.completed_s
        return self.start_s <= at_s <= self.end_s

    def right_images(self, rows: Iterable[RequestRow]) -> int:
        """Images of any of these requests that got their right answer in the window.

        Answers that an overload leaves for after the end are no throughput of the window.
        """
        return sum(
            len(row.images) - row.failed_images
            for row in rows
            if self.start_s <= row.completed_s <= self.end_s
        )


class RequestRow(NamedTuple):
    """How one request of a client went.

    Attributes:
        completed_s: when it completed, on the monotonic clock.
        latency_ms: how long it took; in an open loop from when it was to be sent.
        images: indexes of its images.
        failed_images: how many of them have no right answer.
        error: what the first of them has; empty if none failed.
        lag_ms: how late the client process itself was with it: in an open loop with sending it, and
            in any with reading the reply, for which this is a bound; latency_ms contains it.
    """

    completed_s: float
    latency_ms: float
    images: list[int]
    failed_images: int
    error: str
    lag_ms: float = 0.0


@dataclass(frozen=True)
class RequestRows:
    """At most `RECORDS_PER_LINE` of the window's requests."""

    rows: list[RequestRow]


@dataclass(frozen=True)
class End:
    """All rows of the window were told.

    Attributes:
        right_images: those with a right answer in the window, whenever they were sent.
    """

    right_images: int = 0


@dataclass(frozen=True)
class MasterSetup:
    """What the process with Locust's master is told at its start.

    Attributes:
        host: address where it listens for workers.
        port: of it; 0 for a free one.
        is_open: whether the load is an open loop.
    """

    host: str
    port: int
    is_open: bool


@dataclass(frozen=True)
class Listening:
    """The master waits for workers; `problem` says why it does not, where it is not empty."""

    port: int
    problem: str = ""


@dataclass(frozen=True)
class WorkerSetup:
    """What a worker's process is told at its start.

    Attributes:
        host: where the master is.
        port: of it.
        image_paths: files to send.
        images: name and SHA-256 of each.
    """

    host: str
    port: int
    image_paths: list[str]
    images: list[list[str]]


@dataclass(frozen=True)
class Hello:
    """What a worker says of itself when it has joined.

    Attributes:
        host_name: of its machine, for messages; no result file has it.
        machine_id: the same for all workers of one machine, until it is started again.
        pid: of its process.
        version: of this program.
        machine: as `describe_machine` has it.
        images: name and SHA-256 of each of its images.
    """

    host_name: str
    machine_id: str
    pid: int
    version: str
    machine: dict[str, Any]
    images: list[list[str]]


@dataclass(frozen=True)
class Joined:
    """A worker is there; its number from 1 stands for it from now on."""

    worker: int
    hello: Hello


@dataclass(frozen=True)
class ToWorker:
    """A message, as JSON, for a worker."""

    worker: int
    text: str


@dataclass(frozen=True)
class FromWorker:
    """A message of a worker, as JSON."""

    worker: int
    text: str


@dataclass(frozen=True)
class Left:
    """A worker is gone."""

    worker: int
    reason: str


@dataclass(frozen=True)
class Refused:
    """The worker cannot take part, and is to end."""

    reason: str


@dataclass(frozen=True)
class CompareClocks:
    """The clocks of these workers are to be compared with the master's; `Clocks` answers."""

    workers: list[int]


@dataclass(frozen=True)
class Clock:
    """A worker's monotonic clock beside the master's, by the exchange that took the least time.

    Attributes:
        worker: its number.
        offset_s: what it shows more.
        within_s: how far the offset may be off: half of the time that the exchange took.
    """

    worker: int
    offset_s: float
    within_s: float


@dataclass(frozen=True)
class Clocks:
    """Of the workers that answered."""

    clocks: list[Clock]


@dataclass(frozen=True)
class Spawn:
    """Locust's master is to start so many users on these workers."""

    workers: list[int]
    users: int


@dataclass(frozen=True)
class Notice:
    """What a worker tells the user who started it."""

    text: str


@dataclass(frozen=True)
class Gone:
    """A worker's process ends, and why; with `is_done` after a load that went as it should."""

    reason: str
    is_done: bool


FROM_MASTER = (Listening, Joined, FromWorker, Left, Clocks)
FROM_CLIENTS = (Loaded, ProgressReport, RequestRows, End)
