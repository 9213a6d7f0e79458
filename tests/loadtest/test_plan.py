"""The prediction of the remaining time."""

from __future__ import annotations

import pytest

from loadtest.plan import Plan


def test_the_prediction_follows_what_finished_parts_took() -> None:
    plan = Plan(checks=2, measurements=4, window_s=6.0)
    assert plan.remaining_s() > 4 * 6.0
    plan.checked(3.0)
    plan.measured(10.0)
    plan.measured(12.0)
    assert (plan.done, plan.total) == (2, 4)
    assert plan.remaining_s() == pytest.approx(1 * 3.0 + 2 * 11.0)
    plan.checked(3.0)
    plan.measured(11.0)
    plan.measured(11.0)
    assert plan.remaining_s() == 0
