"""Refuses calls that would wait too long, or for which there is no room, before work is done."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from idl import inference
from service.call_counts import DEADLINE, QUEUE_FULL, QUEUE_WAIT
from service.departure_rate import DepartureRate
from service.handlers.deadline import Deadline
from service.refusals import overloaded

_LEAST_RETRY_MS = 10
_MOST_RETRY_MS = 10_000
# Beside --max-queue-ms a call may wait for others for so many times the time that it takes alone.
_PATIENCE = 4


class Load(NamedTuple):
    """What is in the server at a moment.

    Attributes:
        calls: that were let in and are not answered.
        images: of these calls.
        waiting: of these images: more than the handler works on at once.
    """

    calls: int
    images: int
    waiting: int


class Place:
    """A call's images in the server; leaving the context gives back what is left of them.

    Args:
        admission: counts them.
        images: how many there are.

    Attributes:
        images: how many are not done yet.
        counted: of how many of the others it is known that they were worked on.
        worked_on: how many of all were worked on and not dropped, once the call is done.
        has_had_turn: whether an image of it is done.
    """

    __slots__ = ("_admission", "counted", "has_had_turn", "images", "worked_on")

    def __init__(self, admission: Admission, images: int) -> None:
        self._admission = admission
        self.images = images
        self.counted = 0
        self.worked_on = 0
        self.has_had_turn = False

    def __enter__(self) -> Place:
        return self

    def __exit__(self, *exception: object) -> None:
        self._admission.leave(self, self.images, self.worked_on - self.counted)

    def image_done(self, *, worked_on: bool) -> None:
        """One image is done before the call is; any thread may say so."""
        self._admission.leave(self, 1, int(worked_on))


class Admission:
    """Counts the images in the server: those that are worked on, and those that may wait.

    The handler is fair between calls: it takes an image of each in turn, and of those first that
    have had no turn yet. So a call of several images waits for as many images of each other call as
    it has itself, and not for all that are in the server; a call of one image waits for one image
    of each call that has had no turn.

    Args:
        at_work: images that the handler works on at once.
        max_queue: images that may wait besides.
        max_queue_ms: longest expected wait of an image for those of others; 0 for any. A call of
            many may wait longer, in proportion to what they take themselves; and one image may
            wait, however slow it goes.
        first_guess_s: the time from one image that leaves to the next, before it is measured.
        clock: gives the time in seconds.
    """

    def __init__(
        self,
        at_work: int,
        max_queue: int,
        max_queue_ms: int = 0,
        first_guess_s: float = 0.01,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._at_work = at_work
        self._max_queue = max_queue
        self._limit = at_work + max_queue
        self._max_queue_ms = max_queue_ms
        self._clock = clock
        self._lock = threading.Lock()
        self._in_server = 0
        self._places: set[Place] = set()
        # Those of which no image is done.
        self._without_turn = 0
        self._rate = DepartureRate(at_work, first_guess_s, clock())

    @property
    def load(self) -> Load:
        """What is in the server now."""
        with self._lock:
            waiting = max(0, self._in_server - self._at_work)
            return Load(len(self._places), self._in_server, waiting)

    @property
    def expected_wait_s(self) -> float:
        """How long all images that are here now take, as fast as images have been leaving."""
        with self._lock:
            self._rate.pass_time(self._in_server, self._clock())
            return self._in_server * self._rate.between_s

    @property
    def full_batch_s(self) -> float:
        """How long as many images take as are worked on at once."""
        with self._lock:
            return self._at_work * self._rate.between_s

    @property
    def busy_s(self) -> float:
        """How long there has been work so far, a part of the time with a part of `at_work`."""
        with self._lock:
            self._rate.pass_time(self._in_server, self._clock())
            return self._rate.busy_s

    def admit(self, images: int, deadline: Deadline | None = None) -> Place:
        """Places for `images` images, until the context is left.

        Raises:
            InvalidRequest: one call with more images than would ever be admitted.
            Overloaded: too many images are in the server just now, or the call would wait too long.
        """
        with self._lock:
            self._check(images, deadline)
            place = Place(self, images)
            self._places.add(place)
            self._without_turn += 1
            self._in_server += images
        return place

    def check(self, images: int) -> None:
        """Raise what `admit` would raise of a call, whatever its deadline."""
        with self._lock:
            self._check(images, None)

    def leave(self, place: Place, images: int, worked_on: int) -> None:
        """Images of a call leave; those that have left before are not counted again."""
        with self._lock:
            images = min(images, place.images)
            self._rate.pass_time(self._in_server, self._clock())
            if worked_on > 0:
                self._rate.count_departures(worked_on)
                place.counted += worked_on
            place.images -= images
            self._in_server -= images
            if not place.has_had_turn:
                place.has_had_turn = True
                self._without_turn -= 1
            if not place.images:
                self._places.discard(place)

    def _check(self, images: int, deadline: Deadline | None) -> None:
        if images > self._limit:
            raise inference.InvalidRequest(
                f"a call of {images} images never fits in here: {self._at_work} can be worked on "
                f"at once, and --max-queue lets {self._max_queue} wait; split it"
            )
        self._rate.pass_time(self._in_server, self._clock())
        missing = self._in_server + images - self._limit
        if missing > 0:
            raise overloaded(
                QUEUE_FULL,
                f"{max(0, self._in_server - self._at_work)} images wait already, and "
                f"--max-queue allows {self._max_queue} here; {images} more do not fit",
                _retry_after_ms(missing * self._rate.between_s),
            )
        if self._places and images:
            self._check_wait(images, deadline)

    def _check_wait(self, images: int, deadline: Deadline | None) -> None:
        """Raise Overloaded if a call would wait too long for others that are in the server."""
        between_s = self._rate.between_s
        own_s = (images - 1) * between_s
        ahead = self._without_turn
        if ahead < len(self._places):
            # One of all the others' is at work, or was just before.
            ahead += 1
        if images > 1:
            ahead = sum(min(images, place.images) for place in self._places)
        wait_s = ahead * between_s if ahead >= self._at_work else 0.0
        if self._max_queue_ms:
            # However slow it goes, one image may wait.
            least_s = self._at_work * between_s
            allowed_s = max(self._max_queue_ms / 1000, least_s) + _PATIENCE * own_s
            if wait_s > allowed_s:
                raise overloaded(
                    QUEUE_WAIT,
                    f"a call of {_counted(images)} would wait for others for about "
                    f"{wait_s * 1000:.0f} ms; --max-queue-ms = {self._max_queue_ms} allows "
                    f"{allowed_s * 1000:.0f}",
                    _retry_after_ms(wait_s - allowed_s),
                )
        if deadline is not None and wait_s and wait_s + own_s > deadline.remaining_s():
            raise overloaded(
                DEADLINE,
                f"a call of {_counted(images)} would take about {(wait_s + own_s) * 1000:.0f} ms, "
                f"and has timeout_ms = {deadline.timeout_ms}",
                _retry_after_ms(min(wait_s, wait_s + own_s - deadline.remaining_s())),
            )


def _counted(images: int) -> str:
    return "1 image" if images == 1 else f"{images} images"


def _retry_after_ms(wait_s: float) -> int:
    return round(min(max(wait_s * 1000, _LEAST_RETRY_MS), _MOST_RETRY_MS))
