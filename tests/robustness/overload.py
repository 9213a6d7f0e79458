"""Overload: goodput and tail latency at several times the capacity, beside that at capacity."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from loadtest.errors import LoadTestError
from measurement.statistics import percentile
from tests.robustness import wire
from tests.robustness.checking_clients import RIGHT, KnownImage
from tests.robustness.load_loop import Answer, LoadLoop

FACTORS = (2.0, 4.0, 10.0)
CAPACITY = "capacity"
_SETTLE_S = 0.5
_LEAST_WINDOW_S = 0.5
_LONGEST_WINDOW_S = 6.0


@dataclass(frozen=True)
class LoadWindow:
    """One measured window.

    Attributes:
        kind: CAPACITY, or what `overload` names.
        offered_per_s: requests sent a second.
        goodput_per_s: right answers a second.
        tp99_ms: of the right answers; infinite where there is none.
        counts: requests by outcome.
        own_cores: CPU cores that sending and checking took from the server.
        lag_ms: TP99 of how late the load generator sent; latencies contain it.
    """

    kind: str
    offered_per_s: float
    goodput_per_s: float
    tp99_ms: float
    counts: dict[str, int]
    own_cores: float = 0.0
    lag_ms: float = 0.0


def overload(factor: float) -> str:
    """The kind of a window at so many times the capacity."""
    return f"{factor:g} x capacity"


def window_of(
    kind: str, answers: Sequence[Answer], length_s: float, own_cores: float = 0.0
) -> LoadWindow:
    """Sum a window up; what was sent while the load settled does not count."""
    counted = [answer for answer in answers if answer.due_s >= _SETTLE_S]
    span_s = length_s - _SETTLE_S
    right = sorted(answer.latency_s for answer in counted if answer.outcome == RIGHT)
    # By when they came: those that were still to come at the end are no goodput of this window.
    in_time = sum(
        answer.outcome == RIGHT and _SETTLE_S <= answer.due_s + answer.latency_s < length_s
        for answer in answers
    )
    return LoadWindow(
        kind,
        len(counted) / span_s,
        in_time / span_s,
        1000 * percentile(right, 0.99) if right else math.inf,
        dict(Counter(answer.outcome for answer in counted)),
        own_cores,
        1000 * percentile(sorted(answer.lag_s for answer in counted) or [0.0], 0.99),
    )


def learn_labels(port: int, images: Sequence[bytes], timeout_s: float) -> list[KnownImage]:
    """What an idle server says of each image, which it has to say under load, too.

    Raises:
        LoadTestError: it refuses one.
    """
    known = []
    for data in images:
        reply = wire.exchange(port, wire.infer_batch(1, b"", data), timeout_s)
        result = reply.fields.get(0) if reply.message_type == wire.REPLY else None
        if result is None:
            raise LoadTestError(f"the idle server refused an image: {reply.fields}")
        known.append(KnownImage(data, result[1].decode()))
    return known


def measure(
    loop: LoadLoop, length_s: float, clients: int, show: Callable[[str], None]
) -> list[LoadWindow]:
    """Rounds of windows: at capacity (closed loop), then at each overload (open loop).

    Raises:
        LoadTestError: nothing is answered rightly at capacity.
    """
    kinds = 1 + len(FACTORS)
    rounds = max(1, int(length_s / (kinds * _LONGEST_WINDOW_S)))
    window_s = _SETTLE_S + max(_LEAST_WINDOW_S, length_s / (kinds * rounds) - _SETTLE_S)
    loop.closed(window_s / 2, clients)  # warm-up
    windows: list[LoadWindow] = []

    def keep(kind: str, send: Callable[[], list[Answer]]) -> LoadWindow:
        own_s, started_s = time.process_time(), time.perf_counter()
        answers = send()
        own_cores = (time.process_time() - own_s) / (time.perf_counter() - started_s)
        window = window_of(kind, answers, window_s, own_cores)
        windows.append(window)
        show(
            f"{kind}: {window.offered_per_s:.0f} offered, {window.goodput_per_s:.1f} right "
            f"answers a second, TP99 {window.tp99_ms:.0f} ms, "
            f"sent {window.lag_ms:.0f} ms late"
        )
        return window

    for _ in range(rounds):
        at_capacity = keep(CAPACITY, lambda: loop.closed(window_s, clients))
        if at_capacity.goodput_per_s == 0:
            raise LoadTestError(f"nothing was answered rightly at capacity: {at_capacity.counts}")
        for factor in FACTORS:
            rate_per_s = factor * at_capacity.goodput_per_s
            keep(overload(factor), lambda rate=rate_per_s: loop.open(window_s, rate))  # type: ignore[misc]
    return windows
