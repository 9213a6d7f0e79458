"""What a measurement says: which size of a batch.

Rates are rows a second, one of each window; the windows of a round were measured one after the
other, so that what changes on the machine meanwhile changes all of a round.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

SIZES = (1, 2, 4, 8)
"""Rows of the batches that are tried."""

# A batch of twice the size makes a row wait for twice as many others: it has to be worth that.
# On two cores 1.03 x here was 1.08 x in the server, and 1.01 x there no more than chance.
_LEAST_GAIN = 1.02
# Of all rounds, the share that must show the gain: a median may be luck.
_LEAST_SHARE = 0.75
FEWEST_ROUNDS, _PLANNED_ROUNDS, _MOST_ROUNDS = 5, 7, 15
# Shorter windows are mostly the threads' beginning and end.
SHORTEST_WINDOW_S = 0.02


def faster_by(rates: Sequence[float], reference: Sequence[float]) -> float:
    """How many times as fast as the reference, as the median of all rounds."""
    return statistics.median(one / other for one, other in zip(rates, reference, strict=True))


def is_clearly_faster(rates: Sequence[float], reference: Sequence[float], least: float) -> bool:
    """Whether it is `least` times as fast in the median, and faster in nearly every round."""
    faster = sum(one > other for one, other in zip(rates, reference, strict=True))
    return faster_by(rates, reference) >= least and faster >= _LEAST_SHARE * len(rates)


def choose_batch(rates: Mapping[int, Sequence[float]]) -> int:
    """The largest batch.

    Args:
        rates: those of each size, the smallest first.

    Returns:
        The smallest size that no larger one beats by 2 % for each doubling.
    """
    sizes = list(rates)
    chosen = sizes[0]
    for size in sizes[1:]:
        least = _LEAST_GAIN ** math.log2(size / chosen)
        if is_clearly_faster(rates[size], rates[chosen], least):
            chosen = size
    return chosen


def plan(sizes: Sequence[int], row_s: float, budget_s: float) -> tuple[Sequence[int], float, int]:
    """What can be measured in a time.

    Args:
        sizes: wanted sizes of a batch, the smallest first.
        row_s: how long one row takes.
        budget_s: the time.

    Returns:
        The sizes that fit, the length of a window in seconds, and the number of rounds, each of a
        window for each size: more than must be, since the rest may be slower. No sizes where there
        is no time for two of them, or for the only one.
    """
    for count in range(len(sizes), min(2, len(sizes)) - 1, -1):
        window_s = max(sizes[count - 1] * row_s, SHORTEST_WINDOW_S)
        rounds = int(budget_s / (count * window_s))
        if rounds >= _PLANNED_ROUNDS:
            return sizes[:count], window_s, min(rounds, _MOST_ROUNDS)
    return (), 0.0, 0
