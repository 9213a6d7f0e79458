"""Notices a batch that takes far longer than usual: what runs it may never come back."""

from __future__ import annotations

import time

# Times the mean of the batches before.
_FAR_BEYOND = 10
# Of the newest batch in that mean.
_NEWEST_SHARE = 0.1


class BatchClock:
    """Times the batches of one instance or engine, one at a time."""

    def __init__(self) -> None:
        self._began_s: float | None = None
        self._mean_s = 0.0

    def begin(self, now_s: float) -> None:
        """A batch is about to run, at this time on the monotonic clock."""
        self._began_s = now_s

    def end(self, now_s: float) -> None:
        """It is over, whether it has come through or not."""
        if self._began_s is not None:
            batch_s = now_s - self._began_s
            self._mean_s += (_NEWEST_SHARE if self._mean_s else 1.0) * (batch_s - self._mean_s)
            self._began_s = None

    def stuck_s(self, least_s: float) -> float:
        """For how long a batch has run that is far beyond the usual time; 0 where none is.

        Args:
            least_s: no batch counts before so long, whatever is usual; 0 where none ever does.
        """
        began_s = self._began_s
        if began_s is None or not least_s:
            return 0.0
        so_far_s = time.monotonic() - began_s
        return so_far_s if so_far_s > max(least_s, _FAR_BEYOND * self._mean_s) else 0.0
