"""How fast images leave the server while it has work."""

from __future__ import annotations

import math

# An estimate remembers about so many images, or twice those that are worked on at once; where they
# leave faster, those of this time.
_LEAST_MEMORY = 16
_MEMORY_S = 1.0


class DepartureRate:
    """Estimates the time from one image that leaves to the next. Not thread-safe.

    Time counts as far as the server is busy: wholly while as many images are in it as can be worked
    on at once, in proportion while there are fewer, and not at all while it is idle. So an estimate
    that was learned from few clients is of use for many.

    Args:
        at_work: images that can be worked on at once.
        first_guess_s: the estimate before any image has left.
        now_s: the time.

    Attributes:
        busy_s: the time that has counted so far.
    """

    def __init__(self, at_work: int, first_guess_s: float, now_s: float) -> None:
        self._at_work = at_work
        self._memory = max(_LEAST_MEMORY, 2 * at_work)
        self._remembered_s = first_guess_s
        self._images = 1.0
        self.busy_s = self._busy_at_last_s = 0.0
        self._now_s = now_s

    def pass_time(self, in_server: int, now_s: float) -> None:
        """So many images have been in the server until now."""
        share = min(1.0, in_server / self._at_work)
        self.busy_s += share * (now_s - self._now_s)
        self._now_s = now_s

    def count_departures(self, images: int) -> None:
        """So many images leave now, at which the server has worked."""
        since_last_s = self.busy_s - self._busy_at_last_s
        kept = math.exp(-min(images / self._memory, since_last_s / _MEMORY_S))
        self._remembered_s = kept * (self._remembered_s + since_last_s)
        self._images = kept * (self._images + images)
        self._busy_at_last_s = self.busy_s

    @property
    def between_s(self) -> float:
        """The estimate; it grows while nothing leaves although a whole batch should have left."""
        with_last_s = self._remembered_s + self.busy_s - self._busy_at_last_s
        with_next_s = with_last_s / (self._images + self._at_work)
        return max(self._remembered_s / self._images, with_next_s)
