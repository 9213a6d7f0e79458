"""Counts of calls that also remember the last call of each thread, to tell of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from service.call_counts import OK, CallCounts
from service.requests.request import Request, Teller


@dataclass
class _Call:
    """What is known of a thread's call so far."""

    method: str = ""
    outcome: str = ""
    images: int = 0
    failed_images: int = 0
    took_s: float = 0.0
    done_s: float = 0.0
    stages_ms: Mapping[str, float] = field(default_factory=dict)
    traceparent: str = ""


class ObservedCounts(CallCounts):
    """Counts, and gives each call to those that tell of it once its reply is on its way.

    One thread serves one connection, so that a thread's calls come one after the other.

    Args:
        tellers: called with each of them.
    """

    def __init__(self, tellers: Sequence[Teller]) -> None:
        super().__init__()
        self._tellers = tellers
        self._of_thread = threading.local()

    def image_done(self, outcome: str, stage_times_ms: Mapping[str, float]) -> None:
        """Count it, and keep the stage times of the slowest image."""
        super().image_done(outcome, stage_times_ms)
        call = self._call()
        call.images += 1
        call.failed_images += outcome != OK
        if sum(stage_times_ms.values()) > sum(call.stages_ms.values()):
            call.stages_ms = stage_times_ms

    def continues(self, traceparent: str) -> None:
        """Keep the trace that this thread's call belongs to."""
        self._call().traceparent = traceparent

    def call_done(self, method: str, outcome: str, took_s: float) -> None:
        """Count it, and keep it until its reply is on its way."""
        super().call_done(method, outcome, took_s)
        call = self._call()
        call.method, call.outcome, call.took_s = method, outcome, took_s
        call.done_s = time.monotonic()

    def replied(self, peer: str, request_bytes: int | None, reply_bytes: int) -> None:
        """The reply to this thread's call is on its way."""
        call = self._call()
        del self._of_thread.call
        request = Request(
            call.method,
            call.outcome,
            call.images,
            call.failed_images,
            request_bytes,
            reply_bytes,
            call.done_s - call.took_s,
            call.took_s * 1000,
            peer,
            call.stages_ms,
            call.traceparent,
        )
        for tell in self._tellers:
            tell(request)

    def _call(self) -> _Call:
        try:
            call: _Call = self._of_thread.call
        except AttributeError:
            call = self._of_thread.call = _Call()
        return call
