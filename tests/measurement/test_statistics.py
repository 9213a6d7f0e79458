"""The numbers of the report, against values computed in another way."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from measurement.statistics import (
    Interval,
    Spread,
    _binomial_quantile,
    concurrency,
    paired_ratio,
    percentile,
    percentile_interval,
    unpaired_ratio,
)


def test_a_percentile_is_a_measured_value_at_the_published_rank() -> None:
    """TPxx = sorted[int(q * n)]: 990 of 0..999 for TP99."""
    ordered = [float(i) for i in range(1000)]
    assert percentile(ordered, 0.99) == 990.0
    assert percentile(ordered, 0.50) == 500.0
    assert percentile([7.0], 0.99) == 7.0
    with pytest.raises(ValueError, match="at least one"):
        percentile([], 0.5)


def _coverage(n: int, q: float, low_rank: int, high_rank: int) -> float:
    """P(X_(low) <= true percentile < X_(high)) by the binomial sum itself."""
    return sum(math.comb(n, k) * q**k * (1 - q) ** (n - k) for k in range(low_rank, high_rank))


@pytest.mark.parametrize(("n", "q"), [(100, 0.5), (200, 0.99), (1000, 0.99), (37, 0.5)])
def test_a_percentile_interval_covers_with_95_percent_and_not_with_much_more(
    n: int, q: float
) -> None:
    ordered = [float(i) for i in range(1, n + 1)]
    found = percentile_interval(ordered, q)
    low, high = found.low, found.high if found.high is not None else n + 1
    assert low is not None
    assert _coverage(n, q, int(low), int(high)) >= 0.95
    if found.high is not None:
        # Half a rank narrower on both sides would be too narrow.
        assert _coverage(n, q, int(low) + 1, int(high) - 1) < 0.95


def test_the_interval_of_the_research_note_is_found() -> None:
    """At n = 1,000 the interval of TP99 covers ranks 98.3 to 99.6 %."""
    ordered = [i / 10 for i in range(1, 1001)]
    found = percentile_interval(ordered, 0.99)
    assert found.low == pytest.approx(98.4, abs=0.11)
    assert found.high == pytest.approx(99.6, abs=0.11)


def test_too_few_values_leave_the_upper_bound_open() -> None:
    found = percentile_interval([float(i) for i in range(50)], 0.99)
    assert found.high is None


@given(st.lists(st.floats(0.1, 1000), min_size=1, max_size=300), st.sampled_from([0.5, 0.9, 0.99]))
def test_bounds_of_an_interval_are_measured_values_in_order(values: list[float], q: float) -> None:
    ordered = sorted(values)
    found = percentile_interval(ordered, q)
    bounds = [bound for bound in (found.low, found.high) if bound is not None]
    assert all(bound in ordered for bound in bounds)
    assert bounds == sorted(bounds)


def test_a_paired_ratio_uses_the_t_distribution_on_logarithms() -> None:
    """Five pairs: 2.776445 is the 97.5 % point of t with 4 degrees of freedom."""
    values, references = [22.0, 19.0, 21.0, 24.0, 20.0], [10.0, 10.0, 11.0, 11.0, 9.5]
    logs = [math.log(v / r) for v, r in zip(values, references, strict=True)]
    mean = sum(logs) / 5
    deviation = math.sqrt(sum((x - mean) ** 2 for x in logs) / 4)
    half = 2.776445 * deviation / math.sqrt(5)
    found = paired_ratio(values, references)
    assert found.interval.low == pytest.approx(math.exp(mean - half), rel=1e-6)
    assert found.interval.high == pytest.approx(math.exp(mean + half), rel=1e-6)
    spread = found.spread
    assert (spread.median, spread.low, spread.high) == pytest.approx((20 / 9.5, 1.9, 2.2))
    assert found.is_distinct


def test_equal_variants_are_not_distinct() -> None:
    found = paired_ratio([10.0, 11.0, 9.0], [11.0, 10.0, 9.0])
    assert not found.is_distinct


def test_one_pair_has_no_interval() -> None:
    found = paired_ratio([20.0], [10.0])
    assert found.interval == Interval(None, None)
    assert not found.is_distinct


@pytest.mark.parametrize(("values", "references"), [([1.0], [1.0, 2.0]), ([], []), ([1.0], [0.0])])
def test_pairs_that_make_no_ratio_are_refused(values: list[float], references: list[float]) -> None:
    with pytest.raises(ValueError, match=r"paired|positive"):
        paired_ratio(values, references)


def test_littles_law_gives_the_clients_of_a_closed_loop() -> None:
    """10 clients that each wait 50 ms make 200 requests a second."""
    assert concurrency(requests=1000, mean_latency_ms=50.0, length_s=5.0) == pytest.approx(10.0)


def test_stability_is_measured_from_the_median() -> None:
    assert Spread.of([95.0, 100.0, 109.0]).within(0.10)
    assert not Spread.of([89.0, 100.0, 101.0]).within(0.10)


@pytest.mark.parametrize("n", [1, 2, 7, 100, 12_345])
@pytest.mark.parametrize("q", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("probability", [0.025, 0.975])
def test_ranks_are_those_of_the_binomial_distribution(n: int, q: float, probability: float) -> None:
    assert _binomial_quantile(probability, n, q) == stats.binom.ppf(probability, n, q)


def test_an_unpaired_ratio_has_the_interval_of_welchs_t_test() -> None:
    values, references = [110.0, 118.0, 123.0, 109.0], [100.0, 103.0, 99.0]
    ratio, interval = unpaired_ratio(values, references)
    logs = [[math.log(value) for value in side] for side in (values, references)]
    expected = stats.ttest_ind(*logs, equal_var=False).confidence_interval(0.95)
    assert ratio == pytest.approx(stats.gmean(values) / stats.gmean(references))
    assert interval.low == pytest.approx(math.exp(expected.low))
    assert interval.high == pytest.approx(math.exp(expected.high))
    assert interval.excludes(1)
    assert unpaired_ratio([2.0], references)[1] == Interval(None, None)
    assert unpaired_ratio([2.0, 2.0], [1.0, 1.0]) == (pytest.approx(2.0), Interval(2.0, 2.0))
    with pytest.raises(ValueError, match="positive"):
        unpaired_ratio([1.0], [])
