"""How long a measurement still takes, from what its finished parts took, and how long it may."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace
from statistics import fmean

from loadtest.settings import LoadSettings

# What starting, stopping and collecting take on top of a window, until one was measured.
_FIRST_GUESS_OVERHEAD_S = 3.5
# The same where server and clients are there already.
_KEPT_OVERHEAD_S = 0.8
# A shorter window holds too few requests and samples to say anything.
_SHORTEST_S = 1.0
# What added rows may make of the time of all windows.
_LONGEST_SHARE = 1.25
# Loading what a part alone or a window of stage times needs.
_FIRST_GUESS_EXTRA_S = 12.0


@dataclass(frozen=True)
class TimeLimit:
    """Until when something may still be measured, on the clock of `time.monotonic`, in s."""

    windows_end_s: float = math.inf
    end_s: float = math.inf

    def windows_left_s(self) -> float:
        """Seconds left for timed windows; negative when the time is over."""
        return self.windows_end_s - time.monotonic()

    def left_s(self) -> float:
        """Seconds left for everything."""
        return self.end_s - time.monotonic()

    def fitting_load(self, load: LoadSettings, windows: int) -> LoadSettings:
        """The load with windows that are short enough for so many of them to fit.

        Args:
            load: with the longest window that is wanted.
            windows: how many windows there will be, each with its warm-up.
        """
        if math.isinf(self.windows_end_s) or load.duration_s is None:
            return load
        each_s = self.windows_left_s() / windows - load.warmup_s - _KEPT_OVERHEAD_S
        return replace(load, duration_s=round(min(load.duration_s, max(_SHORTEST_S, each_s)), 1))


UNLIMITED = TimeLimit()


def shortened(load: LoadSettings, rows: int, added: int) -> LoadSettings:
    """The load with windows so short that rows that were added cost a quarter more time at most."""
    if load.duration_s is None:
        return load
    around_s = load.warmup_s + _FIRST_GUESS_OVERHEAD_S
    each_s = (load.duration_s + around_s) * _LONGEST_SHARE * rows / (rows + added) - around_s
    return replace(load, duration_s=round(min(load.duration_s, max(_SHORTEST_S, each_s)), 1))


class Plan:
    """Counts what is left and predicts the end.

    Args:
        checks: servers whose answers are checked first.
        measurements: timed windows.
        extras: parts alone and windows of stage times, most of which have a server or program of
            their own.
        window_s: length of a window with its warm-up.
    """

    def __init__(self, checks: int, measurements: int, window_s: float, extras: int = 0) -> None:
        self.total = measurements + extras
        self._measurements = _Steps(measurements, _FIRST_GUESS_OVERHEAD_S + window_s)
        self._extras = _Steps(extras, _FIRST_GUESS_EXTRA_S)
        self._checks = _Steps(checks, _FIRST_GUESS_OVERHEAD_S)
        self.checked = self._checks.took_s.append
        self.measured = self._measurements.took_s.append
        self.extra_measured = self._extras.took_s.append

    @property
    def done(self) -> int:
        """What was measured so far."""
        return len(self._measurements.took_s) + len(self._extras.took_s)

    @property
    def windows_left(self) -> int:
        """Timed windows that are not measured yet."""
        return self._measurements.left

    def add(self, checks: int, measurements: int) -> None:
        """So many more are planned."""
        self.total += measurements
        self._checks.planned += checks
        self._measurements.planned += measurements

    def left_out(self, windows: int) -> None:
        """So many windows will not be measured."""
        self._measurements.planned -= windows

    def measurement_s(self) -> float:
        """Predicted length of one timed window with all that belongs to it, in seconds."""
        return self._measurements.each_s

    def extra_s(self) -> float:
        """The same of a part alone or a window of stage times."""
        return self._extras.each_s

    def remaining_s(self) -> float:
        """Predicted seconds to the end."""
        return sum(
            steps.left * steps.each_s for steps in (self._checks, self._measurements, self._extras)
        )


@dataclass
class _Steps:
    """Steps of one kind, and how many seconds those that are done took."""

    planned: int
    first_guess_s: float
    took_s: list[float] = field(default_factory=list)

    @property
    def left(self) -> int:
        return self.planned - len(self.took_s)

    @property
    def each_s(self) -> float:
        return fmean(self.took_s or [self.first_guess_s])
