"""Overload: goodput and tail latency at several times the capacity, beside those at capacity."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from loadtest.errors import LoadTestError
from loadtest.robustness import wire
from loadtest.robustness.load_loop import Answer, LoadLoop
from loadtest.robustness.well_behaved import RIGHT, KnownImage
from loadtest.statistics import percentile

OVERLOAD_FACTOR = 4.0
CAPACITY, OVERLOAD = "capacity", "overload"
_SETTLE_S = 0.5
_LEAST_WINDOW_S = 0.5
_LONGEST_WINDOW_S = 6.0
_LEAST_PAIRS = 2


@dataclass(frozen=True)
class LoadWindow:
    """One measured window.

    Attributes:
        kind: CAPACITY or OVERLOAD.
        offered_per_s: requests sent a second.
        goodput_per_s: right answers a second.
        tp99_ms: of the right answers.
        counts: requests by outcome.
    """

    kind: str
    offered_per_s: float
    goodput_per_s: float
    tp99_ms: float
    counts: dict[str, int]


def window_of(kind: str, answers: Sequence[Answer], length_s: float) -> LoadWindow:
    """Sum a window up; what was sent while the load settled does not count.

    Raises:
        LoadTestError: nothing was answered rightly.
    """
    counted = [answer for answer in answers if answer.due_s >= _SETTLE_S]
    span_s = length_s - _SETTLE_S
    right = sorted(answer.latency_s for answer in counted if answer.outcome == RIGHT)
    if not right:
        seen = dict(Counter(answer.outcome for answer in answers))
        raise LoadTestError(f"no request of a window at {kind} was answered rightly: {seen}")
    return LoadWindow(
        kind,
        len(counted) / span_s,
        len(right) / span_s,
        1000 * percentile(right, 0.99),
        dict(Counter(answer.outcome for answer in counted)),
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
    """Windows at capacity (closed loop) and at overload (open loop) in turn.

    Args:
        loop: sends.
        length_s: of all windows together.
        clients: of the closed loop.
        show: is told each window.
    """
    pairs = max(_LEAST_PAIRS, int(length_s / (2 * _LONGEST_WINDOW_S)))
    window_s = _SETTLE_S + max(_LEAST_WINDOW_S, length_s / (2 * pairs) - _SETTLE_S)
    loop.closed(window_s / 2, clients)  # warm-up
    windows: list[LoadWindow] = []
    for _ in range(pairs):
        at_capacity = window_of(CAPACITY, loop.closed(window_s, clients), window_s)
        windows.append(at_capacity)
        rate_per_s = OVERLOAD_FACTOR * at_capacity.goodput_per_s
        windows.append(window_of(OVERLOAD, loop.open(window_s, rate_per_s), window_s))
        for window in windows[-2:]:
            show(
                f"{window.kind}: {window.offered_per_s:.0f} offered, "
                f"{window.goodput_per_s:.1f} right answers a second, TP99 {window.tp99_ms:.0f} ms"
            )
    return windows
