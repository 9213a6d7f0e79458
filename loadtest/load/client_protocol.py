"""What the load test and its client processes say to each other: one JSON line a message."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from loadtest.settings import LoadSettings

PROGRESS_INTERVAL_S = 0.2
RECORDS_PER_LINE = 2000


@dataclass(frozen=True)
class ClientConfig:
    """The part of the load that one client process sends.

    Attributes:
        load: the whole load.
        image_paths: files to send.
        expected_labels: for each file the label that it must get, or None where any will do.
        users: closed-loop clients in this process.
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
    """

    at_s: float
    users: int
    completed: int
    failed: int
    connection_failures: int
    last_error: str


@dataclass(frozen=True)
class Stop:
    """The load is to end, and what completed within [start_s, end_s] is to be told.

    Attributes:
        start_s: start of the window on the monotonic clock.
        end_s: its end.
    """

    start_s: float
    end_s: float


class RequestRow(NamedTuple):
    """How one request of a client went.

    Attributes:
        completed_s: when it completed, on the monotonic clock.
        latency_ms: how long it took.
        images: indexes of its images.
        failed_images: how many of them have no right answer.
        error: what the first of them has; empty if none failed.
    """

    completed_s: float
    latency_ms: float
    images: list[int]
    failed_images: int
    error: str


@dataclass(frozen=True)
class RequestRows:
    """At most `RECORDS_PER_LINE` of the window's requests."""

    rows: list[RequestRow]


@dataclass(frozen=True)
class End:
    """All rows of the window were told."""


FROM_CLIENTS = (Loaded, ProgressReport, RequestRows, End)
