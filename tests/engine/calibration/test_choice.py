"""What is chosen from rates, and how many rounds a time has room for."""

from __future__ import annotations

import pytest

from engine.calibration.choice import SIZES, choose_batch, finalists, plan

STEADY = [100.0] * 8


def times(factor: float) -> list[float]:
    """The steady rates, each so many times as high."""
    return [factor * rate for rate in STEADY]


@pytest.mark.parametrize(
    ("gains", "chosen"),
    [
        ({}, 1),
        ({2: 0.9, 4: 0.8, 8: 0.7}, 1),
        ({2: 1.01, 4: 1.01, 8: 1.01}, 1),
        ({2: 1.05, 4: 1.06, 8: 1.07}, 2),
        ({2: 1.05, 4: 1.10, 8: 1.11}, 4),
        ({2: 1.05, 4: 1.10, 8: 1.15}, 8),
        # 2 % for each doubling, also where one is left out.
        ({2: 1.00, 4: 1.03}, 1),
        ({2: 1.00, 4: 1.05}, 4),
        ({2: 1.00, 4: 1.01, 8: 1.05}, 1),
        ({2: 1.00, 4: 1.01, 8: 1.07}, 8),
    ],
)
def test_a_larger_batch_has_to_gain(gains: dict[int, float], chosen: int) -> None:
    rates = {1: STEADY, **{size: times(gain) for size, gain in gains.items()}}
    assert choose_batch(rates) == chosen


def test_a_median_is_not_enough() -> None:
    """The fewer rounds there are, the more of them have to be faster."""
    for faster, rounds, chosen in ((6, 8, 2), (5, 8, 1), (24, 40, 1), (25, 40, 2)):
        lucky = [120.0] * faster + [90.0] * (rounds - faster)
        assert choose_batch({1: [100.0] * rounds, 2: lucky}) == chosen


def test_the_smallest_size_and_another_go_on_after_the_first_rounds() -> None:
    first = {1: STEADY[:6], 2: times(1.03)[:6], 4: times(1.05)[:6], 8: times(0.9)[:6]}
    assert finalists(first) == [1, 2]
    # It has to gain twice as much.
    assert finalists({**first, 4: times(1.051)[:6]}) == [1, 4]
    assert finalists({**first, 2: STEADY[:6], 4: STEADY[:6]}) == [1, 2]
    assert finalists({4: STEADY}) == [4]
    # Later rounds change nothing in that, and decide between these two.
    later = {**first, 1: [100.0] * 20, 2: [*first[2], *[90.0] * 14]}
    assert finalists(later) == [1, 2]
    assert choose_batch(later) == 1


def test_rounds_are_compared_with_themselves() -> None:
    """A machine that gets slower and slower changes both."""
    slower = [100.0 / (1 + round_number) for round_number in range(8)]
    assert choose_batch({1: slower, 2: [1.05 * rate for rate in slower]}) == 2
    assert choose_batch({1: slower, 2: [1.01 * rate for rate in slower]}) == 1


@pytest.mark.parametrize(
    ("row_s", "sizes"),
    [
        (0.0001, (1, 2, 4, 8)),
        (0.008, (1, 2, 4, 8)),
        (0.02, (1, 2, 4)),
        (0.05, (1, 2)),
        (0.2, ()),
    ],
)
def test_slow_models_are_measured_in_fewer_sizes(row_s: float, sizes: tuple[int, ...]) -> None:
    assert plan(SIZES, row_s, 2.5) == sizes


def test_one_size_is_measured_where_it_is_the_only_one() -> None:
    assert plan((4,), 0.05, 2.5) == (4,)
    assert plan((4,), 0.2, 2.5) == ()
