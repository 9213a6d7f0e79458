"""Counting images in the server; what clients notice of it is tested over the wire."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from idl import inference
from service.admission import Admission


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


def test_the_time_to_retry_grows_with_what_has_to_leave_first() -> None:
    """On a clock that only the test moves, an image leaves each 40 ms."""
    now_s = 100.0
    admission = Admission(at_work=1, max_queue=9, clock=lambda: now_s)
    for _ in range(100):
        with admission.admit(1):
            now_s += 0.04
    now_s += 3600
    with ExitStack() as stack:
        stack.enter_context(admission.admit(10))
        assert refused(admission, 1).retry_after_ms == pytest.approx(40, abs=1)
        assert refused(admission, 5).retry_after_ms == pytest.approx(200, abs=5)
        now_s += 0.4
    with admission.admit(10):
        assert refused(admission, 5).retry_after_ms == pytest.approx(200, abs=5)


@pytest.mark.parametrize(("takes_s", "hint_ms"), [(0.0, 10), (3600.0, 10_000)])
def test_the_time_to_retry_has_bounds(takes_s: float, hint_ms: int) -> None:
    now_s = 100.0
    admission = Admission(at_work=1, max_queue=0, clock=lambda: now_s)
    for _ in range(100):
        with admission.admit(1):
            now_s += takes_s
    with admission.admit(1):
        assert refused(admission).retry_after_ms == hint_ms
