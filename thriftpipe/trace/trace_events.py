"""A recording as trace events, the JSON that Perfetto and Chrome's about:tracing open."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from thriftpipe.trace.recording import Batch, Recording, Request, Side, Span


def trace_events(recording: Recording) -> str:
    """The JSON: a process for each side, and in it a thread for each instance and client.

    Each side begins at 0.
    """
    events = [
        event for process, side in enumerate(recording.sides, 1) for event in _events(process, side)
    ]
    other = {"command": recording.command}
    return json.dumps({"traceEvents": events, "displayTimeUnit": "ms", "otherData": other})


def _events(process: int, side: Side) -> Iterator[dict[str, Any]]:
    yield _named("process_name", process, 0, side.title)
    yield {**_named("process_labels", process, 0, ""), "args": {"labels": _facts(side)}}
    threads: dict[str, int] = {}

    def thread(name: str) -> Iterator[dict[str, Any]]:
        threads[name] = number = len(threads) + 1
        yield _named("thread_name", process, number, name)
        order = {"sort_index": number}
        yield {**_named("thread_sort_index", process, number, ""), "args": order}

    for names in side.instances.values():
        for name in names:
            yield from thread(name)
    for batch in side.batches:
        yield _batch(process, threads[batch.instance], side, batch)
    for client, rows in enumerate(side.spans_of_clients()):
        for number, spans in enumerate(rows):
            name = f"client {client}" + (f" ({number + 1})" if number else "")
            yield from thread(name)
            for span in spans:
                yield _span(process, threads[name], side, span)
        for request in side.requests:
            if request.client == client:
                yield _request(process, threads[f"client {client}"], side, request)


def _named(what: str, process: int, thread: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "name": what, "pid": process, "tid": thread, "args": {"name": name}}


def _complete(
    place: tuple[int, int], side: Side, part: Batch | Request | Span, name: str, category: str
) -> dict[str, Any]:
    """A bar, in microseconds."""
    process, thread = place
    return {
        "ph": "X",
        "name": name,
        "cat": category,
        "pid": process,
        "tid": thread,
        "ts": (part.began_s - side.began_s) * 1e6,
        "dur": (part.ended_s - part.began_s) * 1e6,
    }


def _batch(process: int, thread: int, side: Side, batch: Batch) -> dict[str, Any]:
    args = {
        "rows": batch.rows,
        "reason": batch.reason,
        "requests": [visit.request for visit in batch.visits],
        "in the client's thread": batch.is_inline,
    }
    name = f"{batch.node} {batch.rows}"
    return {**_complete((process, thread), side, batch, name, "batch"), "args": args}


def _span(process: int, thread: int, side: Side, span: Span) -> dict[str, Any]:
    category = "wait" if span.is_wait else "work"
    name = f"wait for {span.name}" if span.is_wait else span.name
    bar = _complete((process, thread), side, span, name, category)
    return {**bar, "args": {"request": span.request}}


def _request(process: int, thread: int, side: Side, request: Request) -> dict[str, Any]:
    args = {"request": request.number, "image": request.image, "failure": request.failure}
    name = f"request {request.number}"
    return {**_complete((process, thread), side, request, name, "request"), "args": args}


def _facts(side: Side) -> str:
    return ", ".join(f"{name}: {fact}" for name, fact in side.facts.items())
