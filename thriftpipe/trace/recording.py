"""What happened in a recorded run: batches of instances, and the ways of requests through them.

All times are seconds on the monotonic clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

LOCKED = "lock"
"""Why a batch of the baseline began: its request got the lock."""


@dataclass(frozen=True)
class Visit:
    """A request in a batch.

    Attributes:
        request: its number.
        queued_s: since when it had waited.
    """

    request: int
    queued_s: float


@dataclass(frozen=True)
class Batch:
    """What one instance did without a break.

    Attributes:
        node: the instance's node.
        instance: its name.
        reason: why the batch left the queue: one of `pipeline.runtime.counts.LeaveReason`, or
            LOCKED.
        rows: how many images it had.
        visits: the requests whose images these are.
        began_s: when the instance had it.
        ended_s: when its results were there.
        is_inline: whether a client's own thread did the work with the instance's backends.
    """

    node: str
    instance: str
    reason: str
    rows: int
    visits: tuple[Visit, ...]
    began_s: float
    ended_s: float
    is_inline: bool = False


@dataclass(frozen=True)
class Step:
    """What a client's thread did for its request outside of any instance."""

    request: int
    name: str
    began_s: float
    ended_s: float


@dataclass(frozen=True)
class Request:
    """One image as its client saw it.

    Attributes:
        number: from 0, in the order in which they were sent.
        client: the number of the client, from 0.
        image: the image's name.
        began_s: when it was sent.
        ended_s: when the answer was there.
        failure: why there is no result, or "".
    """

    number: int
    client: int
    image: str
    began_s: float
    ended_s: float
    failure: str = ""


@dataclass(frozen=True)
class Span:
    """A part of a request's way.

    Attributes:
        request: its number.
        name: the node, or the step.
        is_wait: whether it waited there, and nothing worked for it.
        began_s: when it began.
        ended_s: when it ended.
        batch: the place of its batch in `Side.batches`; None for a step.
    """

    request: int
    name: str
    is_wait: bool
    began_s: float
    ended_s: float
    batch: int | None = None


@dataclass(frozen=True)
class Side:
    """One of those that are shown above each other, under the same load.

    Attributes:
        title: what it is.
        facts: what ran, by name.
        instances: the names of each node's instances, by node.
        engines: the nodes that run a model.
        clients: how many shared the requests; a slow one may have none of them.
        requests: all, in the order of their numbers.
        batches: all, by their beginning.
        steps: all.
    """

    title: str
    facts: Mapping[str, str]
    instances: Mapping[str, Sequence[str]]
    engines: frozenset[str]
    clients: int
    requests: Sequence[Request]
    batches: Sequence[Batch]
    steps: Sequence[Step] = ()

    @property
    def began_s(self) -> float:
        """When the first request was sent."""
        return min(request.began_s for request in self.requests)

    @property
    def wall_s(self) -> float:
        """From then on to the last answer."""
        return max(request.ended_s for request in self.requests) - self.began_s

    def spans(self) -> list[Span]:
        """The parts of all requests' ways, by their beginning."""
        spans = [Span(it.request, it.name, False, it.began_s, it.ended_s) for it in self.steps]
        for place, batch in enumerate(self.batches):
            for visit in batch.visits:
                spans += (
                    Span(visit.request, batch.node, True, visit.queued_s, batch.began_s, place),
                    Span(visit.request, batch.node, False, batch.began_s, batch.ended_s, place),
                )
        return sorted(spans, key=lambda it: (it.began_s, it.ended_s))

    def spans_of_clients(self) -> list[list[list[Span]]]:
        """For each client as many rows of spans as it takes that those of one do not overlap.

        A request has several at once where a graph forks, and where a node sends the elements of a
        list to another one.
        """
        clients: list[list[Span]] = [[] for _ in range(self.clients)]
        for span in self.spans():
            clients[self.requests[span.request].client].append(span)
        return [rows_without_overlap(spans) for spans in clients]


def rows_without_overlap(spans: Iterable[Span]) -> list[list[Span]]:
    """Spans, which come by their beginning, in as many rows as they need not to overlap."""
    rows: list[list[Span]] = [[]]
    for span in spans:
        fitting = (row for row in rows if not row or row[-1].ended_s <= span.began_s)
        row = next(fitting, None)
        if row is None:
            rows.append(row := [])
        row.append(span)
    return rows


@dataclass(frozen=True)
class Recording:
    """One run of `trace`.

    Attributes:
        title: the file's name.
        command: the command line that made it.
        sides: the baseline, where there is one, and the pipeline.
        largest: rows of the largest batch that each node of the pipeline takes.
        note: why there is no baseline, or "".
    """

    title: str
    command: str
    sides: Sequence[Side]
    largest: Mapping[str, int] = field(default_factory=dict)
    note: str = ""

    @property
    def pipeline(self) -> Side:
        """The pipeline's side."""
        return self.sides[-1]

    @property
    def baseline(self) -> Side | None:
        """The baseline's side."""
        return self.sides[0] if len(self.sides) > 1 else None
