"""What `chaos` promises, judged by what was counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from loadtest.robustness import overload
from loadtest.robustness.promises import Promise
from loadtest.robustness.server_under_test import Watch
from loadtest.robustness.well_behaved import FAILED, HUNG, LATE, LOST, REFUSED, RIGHT, WRONG
from loadtest.statistics import Interval, paired_ratio

_LEAST_GOODPUT = 0.9
_MOST_TP99 = 2.0


def load_promises(windows: Sequence[overload.LoadWindow]) -> list[Promise]:
    """Goodput and tail under overload, against those at capacity in the window before."""
    capacity = [window for window in windows if window.kind == overload.CAPACITY]
    loaded = [window for window in windows if window.kind == overload.OVERLOAD]
    goodput = paired_ratio(
        [window.goodput_per_s for window in loaded], [window.goodput_per_s for window in capacity]
    )
    tail = paired_ratio(
        [window.tp99_ms for window in loaded], [window.tp99_ms for window in capacity]
    )
    return [
        Promise(
            "goodput at overload over capacity",
            f"at least {_LEAST_GOODPUT:g}",
            f"{goodput.spread.median:.3f} (median of {goodput.pairs} pairs, "
            f"{_interval(goodput.interval)})",
            goodput.spread.median >= _LEAST_GOODPUT,
        ),
        Promise(
            "TP99 of what is accepted at overload over that at capacity",
            f"at most {_MOST_TP99:g}",
            f"{tail.spread.median:.3f} (median of {tail.pairs} pairs, {_interval(tail.interval)})",
            tail.spread.median <= _MOST_TP99,
        ),
    ]


def _interval(bounds: Interval) -> str:
    if bounds.low is None or bounds.high is None:
        return "one pair shows no spread"
    return f"95 % interval {bounds.low:.3f} to {bounds.high:.3f}"


def answered(counts: Counter[str], may_fail: Sequence[str]) -> Promise:
    """No accepted request is left, but for the outcomes that a phase may have."""
    broken = [
        f"{counts[name]} {name}"
        for name in (REFUSED, LATE, FAILED, LOST, HUNG, WRONG)
        if counts[name] and name not in may_fail
    ]
    return Promise(
        "every accepted request is answered once, rightly or with a declared error",
        "allowed besides: " + (", ".join(may_fail) or "none"),
        ", ".join(broken) or f"{counts.total()} images, none else",
        not broken and counts[RIGHT] > 0,
    )


def pings_answered(watch: Watch, timeout_s: float, may_fail: Sequence[str] = ()) -> Promise:
    """The server answered all the time."""
    slowest_s = max(watch.pings, default=float("inf"))
    lost = len(watch.failures)
    return Promise(
        "pings are answered",
        f"{timeout_s:g} s",
        f"{len(watch.pings)} pings, the slowest answer {slowest_s:.3f} s, {lost} failures",
        slowest_s <= timeout_s and (not lost or LOST in may_fail),
    )
