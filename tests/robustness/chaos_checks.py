"""What `chaos` checks, judged by what was counted."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from loadtest.records.run import Check
from loadtest.report.tables import interval
from measurement.statistics import paired_ratio
from tests.robustness import fairness, overload

_LEAST_GOODPUT = 0.95
_MOST_TP99_MS = 600.0
_MOST_LAG_MS = 100.0
_MOST_CROWDED = 5.0
_LEAST_THROUGHPUT = 0.97


def load_checks(windows: Sequence[overload.LoadWindow], cores: int) -> list[Check]:
    """Goodput at each overload, against the capacity of its round, and the tail of the accepted.

    Goodput is that of each core that the load generator leaves to the server.
    """
    goodputs: dict[str, list[float]] = {}
    totals: dict[str, list[float]] = {}
    for window in windows:
        totals.setdefault(window.kind, []).append(window.goodput_per_s)
        goodput_per_core = window.goodput_per_s / (cores - window.own_cores)
        goodputs.setdefault(window.kind, []).append(goodput_per_core)
    checks = []
    for factor in overload.FACTORS:
        kind = overload.overload(factor)
        goodput, is_kept = "no right answer in at least one window", False
        if min(*totals[kind], *totals[overload.CAPACITY]) > 0:
            ratio = paired_ratio(goodputs[kind], goodputs[overload.CAPACITY])
            of_all = paired_ratio(totals[kind], totals[overload.CAPACITY]).spread.median
            goodput = (
                f"{ratio.spread.median:.3f} (median of {ratio.pairs} pairs, "
                f"95 % interval {interval(ratio.interval, 3)}); "
                f"with the load generator's cores {of_all:.3f}"
            )
            is_kept = ratio.spread.median >= _LEAST_GOODPUT
        tails = [window.tp99_ms for window in windows if window.kind == kind]
        lags = [window.lag_ms for window in windows if window.kind == kind]
        checks += [
            Check(
                f"goodput a core at {kind} over that at capacity",
                f"at least {_LEAST_GOODPUT:g}",
                goodput,
                is_kept,
            ),
            Check(
                f"TP99 of what is accepted at {kind}",
                f"at most {_MOST_TP99_MS:g} ms",
                f"{median(tails):.0f} ms (median of {len(tails)} windows, {min(tails):.0f} to "
                f"{max(tails):.0f})",
                median(tails) <= _MOST_TP99_MS,
            ),
            # A rate that one process cannot send says nothing of the server.
            Check(
                f"TP99 of how late the load generator sends at {kind}",
                f"at most {_MOST_LAG_MS:g} ms",
                f"{median(lags):.0f} ms (median of {len(lags)} windows)",
                median(lags) <= _MOST_LAG_MS,
            ),
        ]
    return checks


def fairness_checks(found: fairness.Fairness) -> list[Check]:
    """What single images wait beside bulk callers, and what all get together."""
    return [
        Check(
            f"a single image beside {fairness.BULK_CALLERS} callers of {fairness.BULK_IMAGES} "
            "over one alone",
            f"at most {_MOST_CROWDED:g}",
            f"{found.ratio:.2f} ({median(found.crowded_ms):.1f} ms of {len(found.crowded_ms)} "
            f"images, {median(found.lone_ms):.1f} ms of {len(found.lone_ms)})",
            found.ratio <= _MOST_CROWDED,
        ),
        Check(
            "images a second with the single ones over those of the bulk callers alone",
            f"at least {_LEAST_THROUGHPUT:g}",
            f"{found.throughput:.3f} ({found.all_per_s:.1f} and {found.bulk_per_s:.1f} a second)",
            found.throughput >= _LEAST_THROUGHPUT,
        ),
    ]
