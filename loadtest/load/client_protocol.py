"""What the load test and its client processes say to each other: one JSON line a message."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from loadtest.settings import LoadSettings

PROGRESS_INTERVAL_S = 0.2
RECORDS_PER_LINE = 2000
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
    """

    load: LoadSettings
    image_paths: list[str]
    expected_labels: list[str | None]
    users: int
    first_user: int


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
    """

    at_s: float
    users: int
    completed: int
    failed: int
    connection_failures: int
    last_error: str
    recent_ms: list[float] = field(default_factory=list)


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


FROM_CLIENTS = (Loaded, ProgressReport, RequestRows, End)
