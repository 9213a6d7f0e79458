"""Where a noisy yes turns into a no: the highest value that still holds, and how sure that is.

A window under load either holds a limit or does not. Near the highest rate that a server can take,
windows go either way, so a single one proves nothing. This is the problem of thresholds in
psychophysics, and its usual answer: every window updates a distribution over the threshold, and the
next one is measured where it tells most (Watson and Pelli, "QUEST: a Bayesian adaptive psychometric
method", 1983).
"""

from __future__ import annotations

import numpy as np

from measurement.statistics import CONFIDENCE, Interval

_POINTS = 2000
# How wide the range is in which a window may end either way, as a share of the threshold: all of
# these are held possible.
_WIDTHS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
# So near an end of the range, in logarithms, nothing more is looked for.
_AT_AN_END = 0.2
# A window that something else disturbed, whatever its rate is.
_DISTURBED = 0.03
# Where the next window is measured: in the middle of what is left, or near one of its ends, which
# tells how wide the range is.
_NEXT = (0.5, 0.1, 0.9)


class Threshold:
    """The distribution over the value at which half of the windows hold.

    Args:
        low: the least value that it may be.
        high: the largest one.
    """

    def __init__(self, low: float, high: float) -> None:
        self._logs = np.linspace(np.log(low), np.log(high), _POINTS)
        # Of each width (rows) and threshold (columns).
        self._beliefs = np.full((len(_WIDTHS), _POINTS), 1.0)
        self._beliefs /= self._beliefs.sum()
        self._seen: list[bool] = []

    def add(self, value: float, *, held: bool) -> None:
        """Take a window that was measured at a value, and either held or did not."""
        steps = (self._logs - np.log(value)) / np.array(_WIDTHS)[:, None]
        holds = _DISTURBED + (1 - 2 * _DISTURBED) / (1 + np.exp(-np.clip(steps, -50, 50)))
        self._beliefs *= holds if held else 1 - holds
        self._beliefs /= self._beliefs.sum()
        self._seen.append(held)

    def next_value(self) -> float:
        """Where the next window tells most; near the ends only once both ends are known."""
        is_bracketed = len({*self._seen}) == 2
        return self._quantile(_NEXT[len(self._seen) % len(_NEXT) if is_bracketed else 0])

    @property
    def median(self) -> float:
        """The threshold is as likely above this as below it."""
        return self._quantile(0.5)

    def interval(self, confidence: float = CONFIDENCE) -> Interval:
        """Where the threshold lies with that probability; None for a bound at the range's end."""
        tail = (1 - confidence) / 2
        low, high = self._quantile(tail), self._quantile(1 - tail)
        return Interval(
            None if np.isclose(np.log(low), self._logs[0]) else low,
            None if np.isclose(np.log(high), self._logs[-1]) else high,
        )

    def is_within(self, share: float) -> bool:
        """Whether the interval is no wider than this share of its lower end."""
        found = self.interval()
        return (
            found.low is not None
            and found.high is not None
            and found.high <= (1 + share) * found.low
        )

    def is_at_an_end(self) -> bool:
        """Whether it most likely lies beyond the range, so that more windows tell nothing new."""
        low, high = self._quantile(1 - CONFIDENCE), self._quantile(CONFIDENCE)
        return bool(
            np.log(high) < self._logs[0] + _AT_AN_END or np.log(low) > self._logs[-1] - _AT_AN_END
        )

    def _quantile(self, q: float) -> float:
        beliefs = np.cumsum(self._beliefs.sum(axis=0))
        place = min(int(np.searchsorted(beliefs, q)), _POINTS - 1)
        return float(np.exp(self._logs[place]))
