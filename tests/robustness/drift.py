"""Whether something drifts over a long run: pure functions of a series."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from scipy import special, stats

from measurement.statistics import CONFIDENCE, Interval, percentile_interval

_BLOCKS = 20


@dataclass(frozen=True)
class Slope:
    """A straight line through the medians of consecutive blocks.

    Attributes:
        per_s: growth a second.
        interval: its confidence interval; bounds are None for fewer than three blocks.
        noise: standard deviation of the medians around the line.
        length_s: from the first block to the last.
    """

    per_s: float
    interval: Interval
    noise: float
    length_s: float

    @property
    def is_within_noise(self) -> bool:
        """True if no growth is proven, or what there is over the run is below twice the noise."""
        low = self.interval.low
        return low is None or low <= 0 or self.per_s * self.length_s <= 2 * self.noise


def slope(times_s: Sequence[float], values: Sequence[float]) -> Slope:
    """Least squares through the medians of blocks.

    Neighbouring samples are alike, so that an interval from single samples would be too narrow.
    Medians of long blocks are nearly independent.

    Raises:
        ValueError: fewer than two samples, or different lengths.
    """
    if len(times_s) != len(values) or len(times_s) < 2:
        raise ValueError("a slope needs two samples, a time each")
    blocks = min(_BLOCKS, len(times_s))
    bounds = [round(index * len(times_s) / blocks) for index in range(blocks + 1)]
    spans = [slice(bounds[index], bounds[index + 1]) for index in range(blocks)]
    xs = [statistics.fmean(times_s[span]) for span in spans]
    ys = [statistics.median(values[span]) for span in spans]
    line = stats.linregress(xs, ys)
    length_s = xs[-1] - xs[0]
    if blocks < 3:
        return Slope(float(line.slope), Interval(None, None), 0.0, length_s)
    squares = sum((y - line.intercept - line.slope * x) ** 2 for x, y in zip(xs, ys, strict=True))
    half = float(special.stdtrit(blocks - 2, (1 + CONFIDENCE) / 2) * line.stderr)
    slope_per_s = float(line.slope)
    interval = Interval(slope_per_s - half, slope_per_s + half)
    return Slope(slope_per_s, interval, math.sqrt(squares / (blocks - 2)), length_s)


@dataclass(frozen=True)
class Quintiles:
    """The first and the last fifth of a series of windows.

    Attributes:
        first: median of the first fifth.
        last: median of the last fifth.
        first_interval: confidence interval of that median, whatever the distribution.
        last_interval: that of the other one.
    """

    first: float
    last: float
    first_interval: Interval
    last_interval: Interval

    @property
    def ratio(self) -> float:
        """The last over the first."""
        return self.last / self.first if self.first else 0.0


def quintiles(values: Sequence[float]) -> Quintiles:
    """Compare the ends of a series.

    Raises:
        ValueError: fewer than five values.
    """
    if len(values) < 5:
        raise ValueError(f"quintiles need five windows, got {len(values)}")
    n = len(values) // 5
    first, last = sorted(values[:n]), sorted(values[-n:])
    return Quintiles(
        statistics.median(first),
        statistics.median(last),
        percentile_interval(first, 0.5),
        percentile_interval(last, 0.5),
    )
