"""The messages between a supervisor and its workers."""

from __future__ import annotations

from dataclasses import dataclass

from service.accepting.listener import DrainNotice, StopRequest


@dataclass(frozen=True)
class NewConnection:
    """To a worker: a connection to serve; its descriptor comes with the message.

    Attributes:
        address: the client's address.
        is_reserve: whether it is one beyond --max-connections.
    """

    address: str
    is_reserve: bool


@dataclass(frozen=True)
class HeartbeatRequest:
    """To a worker: answer with `ConnectionCounts`, as a sign of life."""


@dataclass(frozen=True)
class StatsRequest:
    """To a worker: answer with a `StatsReport`.

    Attributes:
        number: of the question.
    """

    number: int


@dataclass(frozen=True)
class StatsReport:
    """From a worker: what it has done; a descriptor of the report comes with the message.

    Attributes:
        number: of the question; 0 if it was not asked.
    """

    number: int


@dataclass(frozen=True)
class WholeStatsRequest:
    """From a worker: answer with `WholeStats`."""


@dataclass(frozen=True)
class WholeStats:
    """To a worker: what the server has done; a descriptor of that comes with the message."""


@dataclass(frozen=True)
class Ready:
    """From a worker: it can serve.

    Attributes:
        running: what runs in it, in words.
    """

    running: str


@dataclass(frozen=True)
class ConnectionCounts:
    """From a worker: its connections so far.

    Attributes:
        taken: how many it has taken up.
        closed: how many of these are closed.
        closed_reserve: how many of the closed ones were reserve connections.
    """

    taken: int
    closed: int
    closed_reserve: int


@dataclass(frozen=True)
class StartFailure:
    """From a worker: why it cannot start.

    Attributes:
        line: the error, for the user.
        exit_code: that of a server that fails for this reason.
    """

    line: str
    exit_code: int


@dataclass(frozen=True)
class Drained:
    """From a worker, at its end.

    Attributes:
        cut_off: requests that were cut off unfinished.
    """

    cut_off: int


WORKER_MESSAGES = (
    *(NewConnection, HeartbeatRequest, StopRequest, DrainNotice),
    *(Ready, ConnectionCounts, StartFailure, Drained),
    *(StatsRequest, StatsReport, WholeStatsRequest, WholeStats),
)
