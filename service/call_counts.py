"""Counts the calls and images of this process; the source of all that tells of them.

`CallCounts.read` gives the numbers so far as `Stats`, `interfaces.stats.since` the difference of
two of these. One short lock is held for each call and image: it costs less than a microsecond.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Mapping

from interfaces.stats import BOUNDS_MS, Histogram, Stats

OK = "ok"
INVALID_IMAGE = "invalid_image"
INVALID_REQUEST = "invalid_request"
OVERLOADED = "overloaded"
DEADLINE_EXCEEDED = "deadline_exceeded"
DISCONNECTED = "disconnected"
INTERNAL_ERROR = "internal_error"
PROTOCOL_ERROR = "protocol_error"

_OF_CALLS = (
    *(OK, INVALID_IMAGE, INVALID_REQUEST, OVERLOADED),
    *(DEADLINE_EXCEEDED, INTERNAL_ERROR, PROTOCOL_ERROR),
)
_OF_IMAGES = (OK, INVALID_IMAGE, DEADLINE_EXCEEDED, DISCONNECTED, INTERNAL_ERROR)
_INFERENCE = ("infer_batch", "infer_images")

QUEUE_FULL, QUEUE_WAIT, DEADLINE = "queue_full", "queue_wait", "deadline"
MEMORY, CONNECTIONS = "memory", "connections"
REFUSALS = (QUEUE_FULL, QUEUE_WAIT, DEADLINE, MEMORY, CONNECTIONS)
"""Why a call may be refused as overload."""

# They take no time of a handler, and would hide how long the others take.
_UNTIMED = frozenset((INVALID_REQUEST, OVERLOADED, PROTOCOL_ERROR))


class _Times:
    """A histogram that grows."""

    __slots__ = ("counts", "sum_ms")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_MS) + 1)
        self.sum_ms = 0.0


class CallCounts:
    """What has become of the calls and images of this process; for all of its threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # What may come is there from the start: a counter that begins with 1 looks to Prometheus
        # as if nothing had happened.
        self._calls = {(method, outcome): 0 for method in _INFERENCE for outcome in _OF_CALLS}
        self._latencies: dict[str, _Times] = {}
        self._images = dict.fromkeys(_OF_IMAGES, 0)
        self._stages: dict[str, _Times] = {}
        self._refusals = dict.fromkeys(REFUSALS, 0)

    def call_done(self, method: str, outcome: str, took_s: float) -> None:
        """The reply to a call is ready.

        Args:
            method: its name.
            outcome: one of the constants above.
            took_s: since its last byte has come.
        """
        key = method, outcome
        with self._lock:
            self._calls[key] = self._calls.get(key, 0) + 1
            if outcome not in _UNTIMED:
                _add(self._latencies, method, took_s * 1000)

    def image_done(self, outcome: str, stage_times_ms: Mapping[str, float]) -> None:
        """The outcome of an image is there, and how long it was in each stage."""
        with self._lock:
            self._images[outcome] = self._images.get(outcome, 0) + 1
            for stage, stage_ms in stage_times_ms.items():
                _add(self._stages, stage, stage_ms)

    def refused(self, reason: str) -> None:
        """A call is refused as overload, for a reason in one word."""
        with self._lock:
            self._refusals[reason] = self._refusals.get(reason, 0) + 1

    def continues(self, traceparent: str) -> None:
        """This thread's call belongs to a trace of its client's, which only `ObservedCounts` tells.

        Args:
            traceparent: as in the W3C's Trace Context.
        """

    def read(self) -> Stats:
        """The numbers so far."""
        with self._lock:
            calls: dict[str, dict[str, int]] = {}
            for (method, outcome), count in self._calls.items():
                calls.setdefault(method, {})[outcome] = count
            return Stats(
                calls=calls,
                images=dict(self._images),
                refusals=dict(self._refusals),
                latencies=_read(self._latencies),
                stages=_read(self._stages),
            )


def _add(times: dict[str, _Times], name: str, took_ms: float) -> None:
    of_name = times.get(name)
    if of_name is None:
        of_name = times[name] = _Times()
    of_name.counts[bisect_left(BOUNDS_MS, took_ms)] += 1
    of_name.sum_ms += took_ms


def _read(times: dict[str, _Times]) -> dict[str, Histogram]:
    return {name: Histogram(list(one.counts), one.sum_ms) for name, one in times.items()}
