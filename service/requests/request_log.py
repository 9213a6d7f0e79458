"""Log lines of requests: one for each, or for those that were slow."""

from __future__ import annotations

import logging

from service.logs.formats import Event
from service.logs.queued import REQUESTS
from service.requests.request import Request

_log = logging.getLogger(REQUESTS)


class RequestLog:
    """Writes the lines.

    Args:
        is_of_all: whether each request has a line.
        slow_ms: one that took longer has a line with its stage times; 0 for none.
    """

    def __init__(self, *, is_of_all: bool, slow_ms: float) -> None:
        self._is_of_all = is_of_all
        self._slow_ms = slow_ms
        # Whatever else is logged.
        _log.setLevel(logging.INFO)

    def __call__(self, request: Request) -> None:
        """Write what is to be written of a request."""
        if self._is_of_all:
            _write(logging.INFO, Event("request", _fields(request)))
        if 0 < self._slow_ms < request.took_ms:
            stages_ms = {name: round(ms, 3) for name, ms in request.stages_ms.items()}
            told = Event("slow request", {**_fields(request), "stages_ms": stages_ms})
            _write(logging.WARNING, told)


def _write(level: int, event: Event) -> None:
    # Logger.info would find out from where it was called, which takes as long as the rest.
    _log.handle(_log.makeRecord(_log.name, level, __file__, 0, event, (), None))


def _fields(request: Request) -> dict[str, object]:
    return {
        "method": request.method,
        "outcome": request.outcome,
        "images": request.images,
        "failed_images": request.failed_images or None,
        "request_bytes": request.request_bytes,
        "reply_bytes": request.reply_bytes,
        "latency_ms": round(request.took_ms, 3),
        "peer": request.peer,
        "trace_id": _trace_id(request.traceparent),
    }


def _trace_id(traceparent: str) -> str | None:
    """That of a W3C trace context, VERSION-TRACE-SPAN-FLAGS; None where there is none."""
    parts = traceparent.split("-")
    return parts[1] if len(parts) > 1 else None
