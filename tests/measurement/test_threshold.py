"""The highest value that still holds: where it is, how sure that is, and that it covers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from measurement.threshold import Threshold


def _search(true: float, width: float, windows: int, seed: int) -> Threshold:
    """A search in which windows near the threshold end either way."""
    generator = np.random.default_rng(seed)
    threshold = Threshold(10.0, 4000.0)
    for _ in range(windows):
        value = threshold.next_value()
        holds = 1 / (1 + math.exp(-math.log(true / value) / width))
        threshold.add(value, held=bool(generator.random() < holds))
    return threshold


@pytest.mark.parametrize("width", [0.01, 0.05])
def test_the_interval_covers_the_threshold_as_often_as_it_says(width: float) -> None:
    covered = 0
    for seed in range(60):
        true = float(np.random.default_rng(1000 + seed).uniform(50, 2000))
        found = _search(true, width, 20, seed)
        low, high = found.interval().low, found.interval().high
        assert low is not None
        assert high is not None
        covered += low <= true <= high
        assert found.median == pytest.approx(true, rel=6 * width + 0.05)
    assert covered >= 54  # 57 are to be expected


def test_more_windows_make_the_interval_narrower() -> None:
    few, many = (_search(500.0, 0.01, windows, 1) for windows in (8, 60))
    assert not few.is_within(0.05)
    assert many.is_within(0.05)


def test_one_disturbed_window_does_not_decide() -> None:
    threshold = _search(500.0, 0.01, 25, 1)
    threshold.add(100.0, held=False)
    assert threshold.median == pytest.approx(500.0, rel=0.05)


def test_a_threshold_beyond_the_range_has_no_bound_there() -> None:
    always, never = Threshold(10.0, 100.0), Threshold(10.0, 100.0)
    assert not always.is_at_an_end()
    for _ in range(12):
        always.add(always.next_value(), held=True)
        never.add(never.next_value(), held=False)
    assert always.interval().high is None
    assert never.interval().low is None
    assert always.is_at_an_end()
    assert never.is_at_an_end()


def test_a_threshold_within_the_range_is_at_no_end() -> None:
    assert not _search(500.0, 0.01, 12, 1).is_at_an_end()
