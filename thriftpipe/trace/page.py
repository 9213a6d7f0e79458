"""A recording as one self-contained page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files

import jinja2

from interfaces.stats import LEAVE_REASONS
from thriftpipe.trace.findings import images_a_second, latency_ms, node_facts, remarks, verdict
from thriftpipe.trace.recording import LOCKED, Batch, Recording, Side, Span

_REASONS = {name: words.replace("`", "") for name, words in LEAVE_REASONS.items()}
# Colours for what is not the engine.
_COLOURS = 3


@dataclass(frozen=True)
class _Bar:
    """A bar of a lane.

    Attributes:
        left: where it begins, in percent of the page's time.
        width: in percent of it.
        look: its class.
        text: what stands in it.
        told: what it is, for those who point at it.
        group: what belongs together: a batch and what its requests did meanwhile.
    """

    left: float
    width: float
    look: str
    text: str
    told: str
    group: str


@dataclass(frozen=True)
class _Lane:
    name: str
    bars: Sequence[_Bar]
    is_client: bool = False
    is_first: bool = False


def page(recording: Recording) -> str:
    """The page, which needs nothing from elsewhere."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(
        (files("thriftpipe.trace") / "templates" / "timeline.html").read_text("utf-8")
    )
    longest_s = max(side.wall_s for side in recording.sides)
    return template.render(
        recording=recording,
        longest_ms=longest_s * 1000,
        verdict=verdict(recording),
        remarks=list(remarks(recording)),
        reasons=_REASONS,
        sides=[
            {
                "side": side,
                "lanes": list(_lanes(side, longest_s)),
                "nodes": node_facts(side),
                "speed": images_a_second(side),
                "latency_ms": latency_ms(side),
                "legend": _legend(side),
            }
            for side in recording.sides
        ],
    )


def _lanes(side: Side, longest_s: float) -> Iterator[_Lane]:
    looks = _looks(side)

    def bar(part: Batch | Span, look: str, text: str, told: str, group: str) -> _Bar:
        left = 100 * (part.began_s - side.began_s) / longest_s
        width = 100 * (part.ended_s - part.began_s) / longest_s
        return _Bar(left, width, look, text, told, group)

    of_instance: dict[str, list[_Bar]] = {
        name: [] for names in side.instances.values() for name in names
    }
    for place, batch in enumerate(side.batches):
        of_instance[batch.instance].append(
            bar(
                batch,
                f"batch {batch.reason}",
                str(batch.rows),
                _told_of_batch(side, batch),
                f"{side.title}-{place}",
            )
        )
    for name, bars in of_instance.items():
        yield _Lane(name, bars)
    for client, rows in enumerate(side.spans_of_clients(), 1):
        for number, spans in enumerate(rows):
            yield _Lane(
                "" if number else f"client {client}",
                [
                    bar(
                        span,
                        "wait" if span.is_wait else looks[span.name],
                        "",
                        _told_of_span(side, span),
                        f"{side.title}-{span.batch}" if span.batch is not None else "",
                    )
                    for span in spans
                ],
                is_client=True,
                is_first=client == 1 and not number,
            )


def _looks(side: Side) -> dict[str, str]:
    """The class of a client's span by its name: each node and each step has a colour."""
    names = dict.fromkeys([*(step.name for step in side.steps), *side.instances])
    others = [name for name in names if name not in side.engines]
    looks = {name: f"work{number % _COLOURS}" for number, name in enumerate(others)}
    return {name: looks.get(name, "engine") for name in names}


def _legend(side: Side) -> list[tuple[str, str]]:
    waits = "waits for the lock" if side.steps else "waits in a queue"
    return [("wait", waits), *((look, name) for name, look in _looks(side).items())]


def _told_of_batch(side: Side, batch: Batch) -> str:
    requests = ", ".join(str(visit.request + 1) for visit in batch.visits)
    why = (
        "its request has the lock"
        if batch.reason == LOCKED
        else f"{batch.reason}: {_REASONS[batch.reason]}"
    )
    images = f"{batch.rows} image{'s' if batch.rows > 1 else ''}"
    inline = "; in the client's own thread" if batch.is_inline else ""
    return f"{batch.instance}: {images} (request {requests}), {_when(side, batch)}; {why}{inline}"


def _told_of_span(side: Side, span: Span) -> str:
    image = side.requests[span.request].image
    what = f"waits for {span.name}" if span.is_wait else span.name
    return f"request {span.request + 1} ({image}): {what}, {_when(side, span)}"


def _when(side: Side, part: Batch | Span) -> str:
    began_ms = (part.began_s - side.began_s) * 1000
    took_ms = (part.ended_s - part.began_s) * 1000
    return f"{took_ms:.2f} ms from {began_ms:.2f} ms on"
