"""Refuses images beyond what the server may hold, before any work is done for them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from idl import inference

_LEAST_RETRY_MS = 10
_MOST_RETRY_MS = 10_000
# How much of the mean time between two images that leave one image keeps of what was before it.
_KEPT_SHARE = 0.9
# Before anything has been measured.
_FIRST_GUESS_S = 0.01


class Admission:
    """Counts the images in the server: those that are worked on, and those that may wait.

    Args:
        at_work: images that the handler works on at once.
        max_queue: images that may wait besides.
        clock: gives the time in seconds.
    """

    def __init__(
        self, at_work: int, max_queue: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._at_work = at_work
        self._max_queue = max_queue
        self._limit = at_work + max_queue
        self._clock = clock
        self._lock = threading.Lock()
        self._in_server = 0
        # While the server has work to do: the time from one image that leaves it to the next.
        self._between_s = _FIRST_GUESS_S
        self._last_left_s = 0.0

    @contextmanager
    def admit(self, images: int) -> Iterator[None]:
        """Hold places for `images` images while they are in the server.

        Raises:
            InvalidRequest: one call with more images than would ever be admitted.
            Overloaded: too many images wait just now.
        """
        if images > self._limit:
            raise inference.InvalidRequest(
                f"a call of {images} images never fits in here: {self._at_work} can be worked on "
                f"at once, and --max-queue lets {self._max_queue} wait; split it"
            )
        with self._lock:
            missing = self._in_server + images - self._limit
            if missing > 0:
                raise inference.Overloaded(
                    f"{max(0, self._in_server - self._at_work)} images wait already, and "
                    f"--max-queue allows {self._max_queue} here; {images} more do not fit",
                    self._retry_after_ms(missing),
                )
            if not self._in_server:
                # Until now there was nothing that could leave.
                self._last_left_s = self._clock()
            self._in_server += images
        try:
            yield
        finally:
            with self._lock:
                self._in_server -= images
                now_s = self._clock()
                kept = _KEPT_SHARE**images
                between_s = (now_s - self._last_left_s) / images
                self._between_s = kept * self._between_s + (1 - kept) * between_s
                self._last_left_s = now_s

    def _retry_after_ms(self, missing: int) -> int:
        """About when so many images will have left, as fast as they have been leaving."""
        left_ms = missing * self._between_s * 1000
        return round(min(max(left_ms, _LEAST_RETRY_MS), _MOST_RETRY_MS))
