"""When an open loop sends: together the generators make the rate, evenly or at random."""

from __future__ import annotations

from itertools import pairwise, takewhile

import pytest

from loadtest.load.arrivals import ARRIVALS, arrivals
from loadtest.load.client_protocol import RequestRow, Stop


def _until(end_s: float, kind: str, rate: float, generators: int, seed: int = 1) -> list[float]:
    """The times of all generators, which start at slightly different times."""
    return sorted(
        at_s
        for number in range(generators)
        for at_s in takewhile(
            lambda at_s: at_s < end_s,
            arrivals(kind, rate, 10.0 + number / 1000, number, generators, seed),
        )
    )


@pytest.mark.parametrize("generators", [1, 3])
def test_constant_arrivals_are_one_even_stream(generators: int) -> None:
    times = _until(12.0, "constant", 100.0, generators)
    gaps = [after - before for before, after in pairwise(times)]
    assert gaps == pytest.approx([0.01] * len(gaps), abs=1e-6)
    assert 198 <= len(times) <= 200
    assert times[0] > 10.0


def test_poisson_arrivals_have_the_rate_and_are_bursty() -> None:
    """5,000 arrivals: the count is within five standard deviations, gaps are exponential."""
    times = _until(60.0, "poisson", 100.0, 2)
    assert abs(len(times) - 5000) < 5 * 5000**0.5
    gaps = [after - before for before, after in pairwise(times)]
    mean_s = sum(gaps) / len(gaps)
    variance = sum((gap - mean_s) ** 2 for gap in gaps) / len(gaps)
    assert 0.8 < variance / mean_s**2 < 1.25
    assert _until(60.0, "poisson", 100.0, 2) == times
    assert _until(60.0, "poisson", 100.0, 2, seed=2) != times


def test_every_kind_is_later_than_its_start() -> None:
    for kind in ARRIVALS:
        assert next(arrivals(kind, 0.5, 7.0, 0, 1, 0)) > 7.0


def test_a_request_belongs_to_the_window_in_which_it_was_to_be_sent() -> None:
    window = Stop(10.0, 11.0)
    late = RequestRow(completed_s=14.0, latency_ms=3500.0, images=[0], failed_images=0, error="")
    early = RequestRow(completed_s=10.2, latency_ms=500.0, images=[0], failed_images=0, error="")
    assert (window.takes(late, is_open=True), window.takes(late, is_open=False)) == (True, False)
    assert (window.takes(early, is_open=True), window.takes(early, is_open=False)) == (False, True)
