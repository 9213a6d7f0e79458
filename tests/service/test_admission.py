"""Counting images in the server; what clients notice of it is tested over the wire."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from idl import inference
from service.admission import Admission, Place
from service.handlers.deadline import Deadline


def refused(admission: Admission, images: int = 1) -> inference.Overloaded:
    with pytest.raises(inference.Overloaded) as caught, admission.admit(images):
        pytest.fail("admitted beyond the limit")
    return caught.value


def test_places_are_given_back_however_the_work_ends() -> None:
    admission = Admission(at_work=1, max_queue=2)
    with pytest.raises(RuntimeError, match="work"), admission.admit(3):
        raise RuntimeError("work")
    with admission.admit(2), admission.admit(1):
        refused(admission)
    with admission.admit(3):
        refused(admission)


def test_nothing_waits_where_nothing_may() -> None:
    admission = Admission(at_work=2, max_queue=0)
    with admission.admit(2):
        assert refused(admission).message == (
            "0 images wait already, and --max-queue allows 0 here; 1 more do not fit"
        )


def test_a_call_that_never_fits_is_invalid_and_not_overload() -> None:
    admission = Admission(at_work=2, max_queue=3)
    with (
        pytest.raises(inference.InvalidRequest, match="a call of 6 images never fits") as caught,
        admission.admit(6),
    ):
        pytest.fail("admitted beyond the limit")
    assert "--max-queue lets 3 wait; split it" in caught.value.message


class Clock:
    """Moves when the test says so."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def admission_of(clock: Clock, at_work: int = 1, **settings: Any) -> Admission:
    """One that has seen an image leave each 40 ms while it was busy."""
    settings = {"max_queue": 1000, "max_queue_ms": 500, **settings}
    admission = Admission(at_work, clock=clock, **settings)
    serve_steadily(admission, clock, 0.04)
    return admission


def serve_steadily(admission: Admission, clock: Clock, between_s: float, images: int = 100) -> None:
    """Keep it busy, and let an image leave each `between_s`."""
    with ExitStack() as others:
        for _ in range(admission._at_work - 1):
            others.enter_context(admission.admit(1))
        for _ in range(images):
            with worked_on(admission):
                clock.now_s += between_s


@contextmanager
def worked_on(
    admission: Admission, images: int = 1, deadline: Deadline | None = None
) -> Iterator[Place]:
    with admission.admit(images, deadline) as place:
        yield place
        place.worked_on = images


def fill(admission: Admission, stack: ExitStack, images: int = 1) -> int:
    """Admit calls until one is refused: how many."""
    for admitted in itertools.count():
        try:
            stack.enter_context(admission.admit(images))
        except inference.Overloaded:
            return admitted
    raise AssertionError


def test_the_time_to_retry_grows_with_what_has_to_leave_first() -> None:
    clock = Clock()
    admission = admission_of(clock, max_queue=9)
    clock.now_s += 3600
    with admission.admit(10):
        assert refused(admission, 1).retry_after_ms == pytest.approx(40, abs=1)
        assert refused(admission, 5).retry_after_ms == pytest.approx(200, abs=5)


@pytest.mark.parametrize(("takes_s", "hint_ms"), [(0.0, 10), (3600.0, 10_000)])
def test_the_time_to_retry_has_bounds(takes_s: float, hint_ms: int) -> None:
    clock = Clock()
    admission = Admission(at_work=1, max_queue=0, clock=clock)
    serve_steadily(admission, clock, takes_s)
    with admission.admit(1):
        assert refused(admission).retry_after_ms == hint_ms


@pytest.mark.parametrize("at_work", [1, 4, 96])
def test_as_many_wait_as_leave_in_the_time_that_they_may(at_work: int) -> None:
    clock = Clock()
    admission = admission_of(clock, at_work)
    with ExitStack() as stack:
        # With 12 ahead it takes 480 ms until all have left, and with one more 520 ms.
        assert fill(admission, stack) == pytest.approx(max(13, at_work + 1), abs=1)
        overloaded = refused(admission)
        assert "a call of 1 image would wait for others for about" in overloaded.message
        assert "ms; --max-queue-ms = 500 allows" in overloaded.message
        assert 10 <= overloaded.retry_after_ms <= 80


def test_it_is_any_number_where_time_does_not_count() -> None:
    admission = admission_of(Clock(), max_queue_ms=0)
    with ExitStack() as stack:
        assert fill(admission, stack) == 1001


def test_time_without_work_does_not_count() -> None:
    clock = Clock()
    admission = admission_of(clock)
    for _ in range(20):
        clock.now_s += 3600
        with worked_on(admission):
            clock.now_s += 0.04
    with ExitStack() as stack:
        assert fill(admission, stack) == pytest.approx(13, abs=1)


def test_what_one_client_alone_takes_says_what_many_will() -> None:
    """At once 8 images can be worked on: one that takes 80 ms alone makes it 10 ms between them."""
    clock = Clock()
    admission = Admission(8, 1000, 500, clock=clock)
    for _ in range(100):
        with worked_on(admission):
            clock.now_s += 0.08
        clock.now_s += 5
    with ExitStack() as stack:
        assert fill(admission, stack) == pytest.approx(51, abs=1)


def test_batches_that_leave_together_are_no_burst_of_speed() -> None:
    """Of 64 at work 32 leave each 320 ms: one in 10 ms, whenever that is looked at."""
    clock = Clock()
    admission = Admission(64, 2000, clock=clock)
    batches = deque([[admission.admit(1) for _ in range(32)] for _ in range(2)])
    seen = []
    for _ in range(50):
        clock.now_s += 0.16
        seen.append(admission._rate.between_s)
        clock.now_s += 0.16
        batches.append([admission.admit(1) for _ in range(32)])
        for place in batches.popleft():
            with place:
                place.worked_on = 1
    admission._rate.pass_time(0, clock.now_s)
    for between_s in (*seen[20:], admission._rate.between_s):
        assert between_s == pytest.approx(0.01, rel=0.25)


def test_images_of_a_call_count_when_they_are_done_and_not_all_at_its_end() -> None:
    clock = Clock()
    admission = Admission(1, 1000, 500, clock=clock)
    with worked_on(admission, 256) as place:
        for done in range(1, 256):
            clock.now_s += 0.04
            place.image_done(worked_on=True)
            assert place.images == 256 - done
        with ExitStack() as stack:
            assert fill(admission, stack) == pytest.approx(12, abs=1)
    assert admission._rate.between_s == pytest.approx(0.04, rel=0.1)
    place.image_done(worked_on=True)
    assert admission._in_server == 0, "what a handler says of it after its end changes nothing"


def test_mixed_calls_leave_at_the_speed_of_images() -> None:
    clock = Clock()
    admission = Admission(1, 1000, 500, clock=clock)
    for _ in range(4):
        with worked_on(admission, 64) as bulk:
            for _ in range(63):
                clock.now_s += 0.02
                bulk.image_done(worked_on=True)
                with worked_on(admission):
                    clock.now_s += 0.02
            clock.now_s += 0.02
    assert admission._rate.between_s == pytest.approx(0.02, rel=0.1)


def test_what_is_dropped_leaves_but_is_no_sign_of_speed() -> None:
    clock = Clock()
    admission = admission_of(clock)
    for _ in range(1000):
        with admission.admit(1):
            clock.now_s += 0.0001
    assert admission._rate.between_s == pytest.approx(0.04, rel=0.2)


def test_a_stall_shows_while_it_lasts_and_is_forgotten_afterwards() -> None:
    """As when an engine is rebuilt."""
    clock = Clock()
    admission = admission_of(clock)
    with worked_on(admission), ExitStack() as stack:
        clock.now_s += 30
        assert fill(admission, stack) <= 1
    serve_steadily(admission, clock, 0.04, images=150)
    with ExitStack() as stack:
        assert fill(admission, stack) == pytest.approx(13, abs=1)


def test_however_slow_it_goes_as_many_enter_as_can_be_worked_on_and_one_more() -> None:
    clock = Clock()
    admission = Admission(3, 1000, 500, clock=clock)
    serve_steadily(admission, clock, 20.0)
    with ExitStack() as stack:
        assert fill(admission, stack) == 4
        assert refused(admission).retry_after_ms == 10_000


def test_before_anything_has_left_the_first_guess_counts() -> None:
    with ExitStack() as stack:
        assert fill(Admission(2, 1000, 500, first_guess_s=0.1, clock=Clock()), stack) == 6
    with ExitStack() as stack:
        assert fill(Admission(2, 1000, 500, first_guess_s=9.0, clock=Clock()), stack) == 3


@pytest.mark.parametrize("images", [1, 256])
def test_a_lone_call_is_never_refused(images: int) -> None:
    clock = Clock()
    admission = Admission(1, 1000, 500, clock=clock)
    serve_steadily(admission, clock, 20.0)
    with admission.admit(images, Deadline(time.monotonic() + 0.001, 1)) as place:
        assert place.images == images


def test_bulk_calls_do_not_keep_single_images_out() -> None:
    """Four calls of 256 are like four of one to a caller of one image: a turn each."""
    admission = admission_of(Clock(), max_queue=1024)
    with ExitStack() as stack:
        assert [stack.enter_context(admission.admit(256)).images for _ in range(3)] == [256] * 3
        assert fill(admission, stack) == pytest.approx(10, abs=1)


def test_those_that_have_had_their_turn_are_not_ahead_of_a_single_image() -> None:
    clock = Clock()
    admission = Admission(2, 5000, 500, first_guess_s=0.4, clock=clock)
    with ExitStack() as stack:
        bulk = [stack.enter_context(admission.admit(256)) for _ in range(4)]
        refused(admission)
        for place in bulk:
            clock.now_s += 0.4
            place.image_done(worked_on=True)
        assert fill(admission, stack) == 2
        assert admission._in_server == 4 * 255 + 2


def test_a_bulk_call_waits_in_proportion_to_what_it_takes() -> None:
    admission = admission_of(Clock(), max_queue=10_000)
    with ExitStack() as stack:
        assert fill(admission, stack, images=256) == 5
    with ExitStack() as stack:
        # For each other call two images of 40 ms, and 660 ms may be waited.
        assert fill(admission, stack, images=2) == pytest.approx(9, abs=1)


def test_a_call_that_its_time_does_not_suffice_for_is_refused_at_once() -> None:
    admission = admission_of(Clock(), max_queue_ms=0)
    soon = Deadline(time.monotonic() + 0.2, 200)
    with ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(admission.admit(1))
        with pytest.raises(inference.Overloaded, match="has timeout_ms = 200") as caught:
            admission.admit(1, soon)
        assert caught.value.retry_after_ms == pytest.approx(600, abs=60)
        admission.admit(1, Deadline(time.monotonic() + 30, 30_000))
