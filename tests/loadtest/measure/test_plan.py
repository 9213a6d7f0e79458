"""The prediction of the remaining time."""

from __future__ import annotations

import time

import pytest

from loadtest.measure.plan import UNLIMITED, Plan, TimeLimit, shortened
from loadtest.settings import LoadSettings


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


def test_parts_and_stages_are_predicted_apart_from_windows() -> None:
    plan = Plan(checks=0, measurements=2, extras=2, window_s=6.0)
    plan.measured(10.0)
    plan.extra_measured(3.0)
    assert (plan.done, plan.total, plan.windows_left) == (2, 4, 1)
    assert plan.remaining_s() == pytest.approx(10.0 + 3.0)


def test_windows_are_as_long_as_the_time_allows() -> None:
    load = LoadSettings(warmup_s=0.5, duration_s=6.5)
    now_s = time.monotonic()
    assert UNLIMITED.fitting_load(load, 1000) == load
    assert TimeLimit(now_s + 1000, now_s + 1000).fitting_load(load, 10) == load
    fitting = TimeLimit(now_s + 40, now_s + 1000).fitting_load(load, 10).duration_s
    assert fitting is not None
    assert 2.0 <= fitting <= 3.0
    # Where the time is over already, those that are still measured say something.
    assert TimeLimit(now_s - 1, now_s).fitting_load(load, 10).duration_s == 1.0


@pytest.mark.parametrize(("rows", "added"), [(4, 2), (3, 2), (4, 1)])
def test_added_rows_make_windows_shorter_and_the_whole_a_quarter_longer_at_most(
    rows: int, added: int
) -> None:
    load = LoadSettings(warmup_s=1.0, duration_s=6.5)
    plan = Plan(checks=0, measurements=rows, window_s=7.5)
    before_s = plan.remaining_s()
    found = shortened(load, rows, added).duration_s
    assert found is not None
    assert 3.0 < found <= 6.5
    after_s = Plan(checks=0, measurements=rows + added, window_s=1.0 + found).remaining_s()
    assert after_s == pytest.approx(1.25 * before_s, rel=0.02)
    assert shortened(load, 4, 0) == load


def test_rows_that_are_added_are_planned() -> None:
    plan = Plan(checks=2, measurements=4, window_s=6.0)
    before_s = plan.remaining_s()
    plan.add(checks=1, measurements=2)
    assert (plan.total, plan.windows_left) == (6, 6)
    assert plan.remaining_s() == pytest.approx(1.5 * before_s)
