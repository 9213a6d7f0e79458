"""What a measurement says: which size of a batch.

Rates are rows a second, one of each window; the windows of a round were measured one after the
other, so that what changes on the machine meanwhile changes all of a round. A few rounds of all
sizes tell the one that is measured on beside the smallest.
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
# A median may be luck. Without any gain, so many standard deviations more rounds than half of all
# are faster in some one of ten measurements.
_DEVIATIONS = 1.28
# Even numbers: each size is first as often as last.
FEWEST_ROUNDS, _PLANNED_ROUNDS, MOST_ROUNDS = 6, 8, 60
# Shorter windows are mostly the threads' beginning and end.
SHORTEST_WINDOW_S = 0.02


def faster_by(rates: Sequence[float], reference: Sequence[float]) -> float:
    """How many times as fast as the reference, as the median of the rounds that both were in."""
    return statistics.median(one / other for one, other in zip(rates, reference, strict=False))


def choose_batch(rates: Mapping[int, Sequence[float]]) -> int:
    """The largest batch.

    Args:
        rates: those of each size, the smallest first.

    Returns:
        Of the `finalists` the larger one, if it gains 2 % for each doubling, and not by chance.
    """
    smallest, *others = finalists(rates)
    for larger in others:
        pairs = list(zip(rates[larger], rates[smallest], strict=True))
        faster = sum(one > other for one, other in pairs)
        enough = len(pairs) / 2 + _DEVIATIONS * math.sqrt(len(pairs)) / 2
        least = _least(larger / smallest)
        if faster >= enough and faster_by(rates[larger], rates[smallest]) >= least:
            return larger
    return smallest


def finalists(rates: Mapping[int, Sequence[float]]) -> list[int]:
    """The smallest size, and the one that in the first rounds gains most beyond what it has to.

    Args:
        rates: those of each size, the smallest first.
    """
    smallest, *larger = rates
    first = {size: of_size[:FEWEST_ROUNDS] for size, of_size in rates.items()}

    def gain(size: int) -> float:
        return faster_by(first[size], first[smallest]) / _least(size / smallest)

    return [smallest, *sorted(larger, key=gain)[-1:]]


def _least(times: float) -> float:
    """What a batch of so many times the size has to gain."""
    least: float = _LEAST_GAIN ** math.log2(times)
    return least


def window_of(largest: int, row_s: float) -> float:
    """How long a window is, in seconds, where a batch has `largest` rows of `row_s` seconds."""
    return max(largest * row_s, SHORTEST_WINDOW_S)


def plan(sizes: Sequence[int], row_s: float, budget_s: float) -> Sequence[int]:
    """What can be measured in a time.

    Args:
        sizes: wanted sizes of a batch, the smallest first.
        row_s: how long one row takes.
        budget_s: the time.

    Returns:
        The sizes that fit: for which there is time for more rounds than must be, since the rest
        may be slower. None where there is no time for two of them, or for the only one.
    """
    for count in range(len(sizes), min(2, len(sizes)) - 1, -1):
        round_s = count * window_of(sizes[count - 1], row_s)
        if budget_s / round_s >= _PLANNED_ROUNDS:
            return sizes[:count]
    return ()
