"""The numbers of a measurement: pure functions of raw values."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from scipy import special

CONFIDENCE = 0.95


def percentile(ordered: Sequence[float], q: float) -> float:
    """TPxx as the published tool takes it: `ordered[int(q * n)]`, a value that was measured.

    Raises:
        ValueError: no values.
    """
    if not ordered:
        raise ValueError("a percentile needs at least one value")
    return ordered[min(int(q * len(ordered)), len(ordered) - 1)]


@dataclass(frozen=True)
class Interval:
    """An interval; a bound is None where the data does not reach so far."""

    low: float | None
    high: float | None

    def text(self, digits: int) -> str:
        """Its bounds in brackets; one that the data does not reach is "?"."""
        low, high = (
            "?" if bound is None else f"{bound:.{digits}f}" for bound in (self.low, self.high)
        )
        return f"[{low}, {high}]"

    def is_below(self, other: Interval) -> bool:
        """True if it lies below another one without touching it."""
        return self.high is not None and other.low is not None and self.high < other.low

    def excludes(self, value: float) -> bool:
        """True if it has both bounds and the value lies outside of them."""
        return self.low is not None and self.high is not None and not self.low <= value <= self.high


def percentile_interval(
    ordered: Sequence[float], q: float, confidence: float = CONFIDENCE
) -> Interval:
    """Confidence interval of a percentile from order statistics.

    How many of n values lie below the true percentile is binomial (n, q), whatever the
    distribution of the values is. The ranks are chosen so that each tail has at most half of the
    remaining probability.

    Args:
        ordered: the values in ascending order.
        q: 0.99 for TP99.
        confidence: probability that the interval covers the true percentile.
    """
    n = len(ordered)
    tail = (1 - confidence) / 2
    low_rank = _binomial_quantile(tail, n, q)
    high_rank = _binomial_quantile(1 - tail, n, q) + 1
    return Interval(
        low=ordered[low_rank - 1] if low_rank >= 1 else None,
        high=ordered[high_rank - 1] if high_rank <= n else None,
    )


def _binomial_quantile(probability: float, n: int, q: float) -> int:
    """Smallest k for which k or fewer of n values lie below with at least that probability.

    From scipy.special, because importing scipy.stats takes half a second of every start.
    """
    # The inverse is exact up to rounding, which may lift it over the next whole number.
    k = math.ceil(float(special.bdtrik(probability, n, q)))
    return k - 1 if k > 0 and special.bdtr(k - 1, n, q) >= probability else k


@dataclass(frozen=True)
class Spread:
    """Median and extremes of one value per repeat."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of one or more values."""
        return cls(statistics.median(values), min(values), max(values))

    def range_text(self, digits: int) -> str:
        """Its extremes in brackets."""
        return f"[{self.low:.{digits}f}, {self.high:.{digits}f}]"

    def within(self, share: float) -> bool:
        """True if no value is further from the median than `share` of it."""
        return max(self.high - self.median, self.median - self.low) <= share * self.median


@dataclass(frozen=True)
class Ratio:
    """A ratio paired repeat by repeat.

    Attributes:
        spread: of the ratios.
        interval: t interval of the geometric mean; bounds are None for a single pair.
        pairs: how many.
    """

    spread: Spread
    interval: Interval
    pairs: int

    @property
    def is_distinct(self) -> bool:
        """True if the interval excludes 1, that is, the repeats show a difference."""
        return self.interval.excludes(1)


def paired_ratio(
    values: Sequence[float], references: Sequence[float], confidence: float = CONFIDENCE
) -> Ratio:
    """Ratio of values to the references of the same repeats.

    Logarithms make x2 and x0.5 equally far from 1, so the interval is that of the mean log ratio.

    Raises:
        ValueError: different lengths, none, or a value that is not positive.
    """
    if len(values) != len(references) or not values:
        raise ValueError("paired values need the same number of repeats, at least one")
    if min(*values, *references) <= 0:
        raise ValueError("a ratio needs positive values")
    ratios = [value / reference for value, reference in zip(values, references, strict=True)]
    n = len(ratios)
    if n == 1:
        return Ratio(Spread.of(ratios), Interval(None, None), n)
    logs = [math.log(ratio) for ratio in ratios]
    center = statistics.fmean(logs)
    half = (
        float(special.stdtrit(n - 1, (1 + confidence) / 2)) * statistics.stdev(logs) / math.sqrt(n)
    )
    return Ratio(Spread.of(ratios), Interval(math.exp(center - half), math.exp(center + half)), n)


def unpaired_ratio(
    values: Sequence[float], references: Sequence[float], confidence: float = CONFIDENCE
) -> tuple[float, Interval]:
    """Ratio of the geometric means of values that were not measured in turns.

    Returns:
        The ratio, and Welch's t interval of the difference of the mean logs, which does not assume
        that both scatter alike; its bounds are None where one side has a single value.

    Raises:
        ValueError: no values, or one that is not positive.
    """
    if not values or not references or min(*values, *references) <= 0:
        raise ValueError("a ratio needs positive values on both sides")
    logs = [[math.log(value) for value in side] for side in (values, references)]
    center = statistics.fmean(logs[0]) - statistics.fmean(logs[1])
    if min(map(len, logs)) < 2:
        return math.exp(center), Interval(None, None)
    shares = [statistics.variance(side) / len(side) for side in logs]
    if (whole := sum(shares)) == 0:
        return math.exp(center), Interval(math.exp(center), math.exp(center))
    freedom = whole**2 / sum(
        share**2 / (len(side) - 1) for share, side in zip(shares, logs, strict=True)
    )
    half = float(special.stdtrit(freedom, (1 + confidence) / 2)) * math.sqrt(whole)
    return math.exp(center), Interval(math.exp(center - half), math.exp(center + half))


def concurrency(requests: int, mean_latency_ms: float, length_s: float) -> float:
    """Little's law: throughput times mean latency, the requests that were in flight on average.

    In a closed loop it must equal the number of clients; where it does not, time was lost outside
    of the measured calls, or calls were lost.
    """
    return requests / length_s * mean_latency_ms / 1000
