"""How long a measurement still takes, from what its finished parts took, and how long it may."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from statistics import fmean

from loadtest.clients import LoadSettings

# What starting, stopping and collecting take on top of a window, until one was measured.
_FIRST_GUESS_OVERHEAD_S = 3.5
# The same where server and clients are there already.
_KEPT_OVERHEAD_S = 0.8
# A shorter window holds too few requests and samples to say anything.
_SHORTEST_S = 1.0
# Loading what a part alone or a window of stage times needs.
_FIRST_GUESS_EXTRA_S = 12.0


@dataclass(frozen=True)
class TimeLimit:
    """Until when something may still be measured, on the clock of `time.monotonic`, in s.

    Attributes:
        windows_end_s: end of the timed windows.
        end_s: end of everything.
    """

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


class Plan:
    """Counts what is left and predicts the end.

    Args:
        checks: servers whose answers are checked first.
        measurements: timed windows.
        extras: parts alone and windows of stage times, which have a server or program of their
            own.
        window_s: length of a window with its warm-up.
    """

    def __init__(self, checks: int, measurements: int, window_s: float, extras: int = 0) -> None:
        self.total = measurements + extras
        self._measurements = measurements
        self._extras = extras
        self._checks = checks
        self._window_s = window_s
        self._check_s: list[float] = []
        self._measurement_s: list[float] = []
        self._extra_s: list[float] = []

    @property
    def done(self) -> int:
        """What was measured so far."""
        return len(self._measurement_s) + len(self._extra_s)

    @property
    def windows_left(self) -> int:
        """Timed windows that are not measured yet."""
        return self._measurements - len(self._measurement_s)

    def measurement_s(self) -> float:
        """Predicted length of one timed window with all that belongs to it, in seconds."""
        return fmean(self._measurement_s or [_FIRST_GUESS_OVERHEAD_S + self._window_s])

    def extra_s(self) -> float:
        """The same of a part alone or a window of stage times."""
        return fmean(self._extra_s or [_FIRST_GUESS_EXTRA_S])

    def remaining_s(self) -> float:
        """Predicted seconds to the end."""
        check_s = fmean(self._check_s or [_FIRST_GUESS_OVERHEAD_S])
        checks_left = self._checks - len(self._check_s)
        extras_left = self._extras - len(self._extra_s)
        return (
            checks_left * check_s
            + self.windows_left * self.measurement_s()
            + extras_left * self.extra_s()
        )

    def checked(self, seconds: float) -> None:
        """One server was checked."""
        self._check_s.append(seconds)

    def measured(self, seconds: float) -> None:
        """One window was measured."""
        self._measurement_s.append(seconds)

    def extra_measured(self, seconds: float) -> None:
        """One part alone or one window of stage times was measured."""
        self._extra_s.append(seconds)
