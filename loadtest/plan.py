"""How long a comparison still takes, from what its finished parts took."""

from __future__ import annotations

from statistics import fmean

# What starting, stopping and collecting take on top of a window, until one was measured.
_FIRST_GUESS_OVERHEAD_S = 3.5


class Plan:
    """Counts what is left and predicts the end.

    Args:
        checks: servers whose answers are checked first.
        measurements: windows.
        window_s: length of a window with its warm-up.
    """

    def __init__(self, checks: int, measurements: int, window_s: float) -> None:
        self.total = measurements
        self._checks = checks
        self._window_s = window_s
        self._check_s: list[float] = []
        self._measurement_s: list[float] = []

    @property
    def done(self) -> int:
        """Windows measured so far."""
        return len(self._measurement_s)

    def remaining_s(self) -> float:
        """Predicted seconds to the end."""
        check_s = fmean(self._check_s or [_FIRST_GUESS_OVERHEAD_S])
        measurement_s = fmean(self._measurement_s or [_FIRST_GUESS_OVERHEAD_S + self._window_s])
        checks_left = self._checks - len(self._check_s)
        return checks_left * check_s + (self.total - self.done) * measurement_s

    def checked(self, seconds: float) -> None:
        """One server was checked."""
        self._check_s.append(seconds)

    def measured(self, seconds: float) -> None:
        """One window was measured."""
        self._measurement_s.append(seconds)
