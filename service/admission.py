"""Refuses images beyond what the server may hold, before any work is done for them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from idl import inference

_LEAST_RETRY_MS = 10
_MOST_RETRY_MS = 10_000
# Weight of the newest call in the running mean of how long calls stay.
_NEWEST_WEIGHT = 0.1


class Admission:
    """Counts the images that the server works on, up to a limit."""

    def __init__(self, max_in_flight_images: int) -> None:
        self._limit = max_in_flight_images
        self._lock = threading.Lock()
        self._in_flight = 0
        self._mean_stay_s = 0.0

    @contextmanager
    def admit(self, images: int) -> Iterator[None]:
        """Hold places for `images` images while they are worked on.

        Raises:
            InvalidRequest: one call with more images than would ever be admitted.
            Overloaded: too many images are being worked on just now.
        """
        if images > self._limit:
            raise inference.InvalidRequest(
                f"a call may hold at most {self._limit} images, got {images}; split it"
            )
        with self._lock:
            free = self._limit - self._in_flight
            if images > free:
                raise inference.Overloaded(
                    f"{self._in_flight} images are being worked on, at most {self._limit} may be; "
                    f"{images} more do not fit",
                    self._retry_after_ms(),
                )
            self._in_flight += images
        started_s = time.monotonic()
        try:
            yield
        finally:
            stay_s = time.monotonic() - started_s
            with self._lock:
                self._in_flight -= images
                self._mean_stay_s += _NEWEST_WEIGHT * (stay_s - self._mean_stay_s)

    def _retry_after_ms(self) -> int:
        """About when the calls that are in the server now will have left it."""
        return round(min(max(self._mean_stay_s * 1000, _LEAST_RETRY_MS), _MOST_RETRY_MS))
