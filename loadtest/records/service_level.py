"""Whether windows hold a limit of the TP99, and the highest rate that does."""

from __future__ import annotations

import math
from collections.abc import Sequence

from loadtest.records.run import TRIAL, Window
from measurement.statistics import percentile
from measurement.threshold import Threshold

RESOLUTION = 0.05
"""A rate is known well enough where its interval is no wider than this share."""
# The highest rate may be so much lower, or higher, than what clients that wait were served.
_LOWEST_SHARE = 1 / 50
HIGHEST_SHARE = 8


def tp99_ms(window: Window) -> float:
    """TP99 of all requests; one without a right answer counts as infinite."""
    return percentile(
        sorted(math.inf if r.failed_images else r.latency_ms for r in window.records), 0.99
    )


def holds(window: Window, slo_ms: float) -> bool:
    """Whether the TP99 of all requests is within the limit."""
    return tp99_ms(window) <= slo_ms


def closed_rate_per_s(windows: Sequence[Window]) -> float:
    """Right answers a second to the clients of the first window, which wait for their answers."""
    first = next(window for window in windows if window.repeat == TRIAL)
    return sum(not record.failed_images for record in first.records) / first.length_s


def search_of(windows: Sequence[Window], slo_ms: float) -> Threshold:
    """What windows say of the highest rate: a first one of a closed loop, then open loops."""
    closed = closed_rate_per_s(windows)
    threshold = Threshold(_LOWEST_SHARE * closed, HIGHEST_SHARE * closed)
    for window in windows:
        if window.offered_per_s is not None:
            threshold.add(window.offered_per_s, held=holds(window, slo_ms))
    return threshold
