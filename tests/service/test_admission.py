"""Counting images in flight; the rest is tested over the wire."""

from __future__ import annotations

import pytest

from idl import inference
from service.admission import Admission


def test_places_are_given_back_however_the_work_ends() -> None:
    admission = Admission(3)
    with pytest.raises(RuntimeError, match="work"), admission.admit(3):
        raise RuntimeError("work")
    with (
        admission.admit(2),
        admission.admit(1),
        pytest.raises(inference.Overloaded),
        admission.admit(1),
    ):
        pytest.fail("admitted beyond the limit")
    with admission.admit(3):
        pass


def test_the_time_to_retry_is_a_sensible_number_of_milliseconds() -> None:
    admission = Admission(1)
    with (
        admission.admit(1),
        pytest.raises(inference.Overloaded) as caught,
        admission.admit(1),
    ):
        pytest.fail("admitted beyond the limit")
    assert 10 <= caught.value.retry_after_ms <= 10_000
