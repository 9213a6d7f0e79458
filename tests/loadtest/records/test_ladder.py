"""Throughput within a limit from windows at a few numbers of clients, and which comes next."""

from __future__ import annotations

import math

import pytest

from loadtest.records.ladder import Climb, Ladder, Rung


def _ladder(*rungs: tuple[int, float, float]) -> Ladder:
    return Ladder([Rung(*rung) for rung in rungs], 10.0)


def test_throughput_at_the_limit_lies_between_the_rungs_on_both_sides() -> None:
    ladder = _ladder((1, 100.0, 5.0), (2, 180.0, 8.0), (4, 200.0, 12.5))
    found = ladder.images_per_s
    assert found is not None
    # 10 ms is in the middle of 8 and 12.5 ms, as logarithms.
    assert found == pytest.approx(190.0)
    assert ladder.score == pytest.approx(math.log(found))


def test_a_rung_that_fails_everything_adds_nothing() -> None:
    assert _ladder((1, 100.0, 5.0), (2, 50.0, math.inf)).images_per_s == 100.0


def test_all_rungs_within_the_limit_serve_their_most() -> None:
    assert _ladder((1, 100.0, 5.0), (2, 180.0, 8.0), (4, 170.0, 9.0)).images_per_s == 180.0


def test_a_rung_above_one_that_fails_does_not_count() -> None:
    assert _ladder((1, 100.0, 5.0), (2, 120.0, 20.0), (4, 900.0, 9.0)).held == [Rung(1, 100.0, 5.0)]


def test_beyond_the_limit_a_score_still_tells_better_from_worse() -> None:
    far, near, within = (_ladder((1, 100.0, ms)) for ms in (40.0, 11.0, 9.0))
    assert (far.images_per_s, near.images_per_s) == (None, None)
    assert far.score < near.score < within.score
    assert _ladder((1, 0.0, math.inf)).score < far.score


@pytest.mark.parametrize(
    ("highest", "start", "asked"),
    [
        (4, 0, [1, 2, 4, 8]),
        (4, 2, [4, 8]),
        (1, 2, [4, 2, 1]),
        (0, 1, [2, 1]),
        (99, 1, [2, 4, 8]),
        (99, 9, [8]),
    ],
)
def test_a_climb_goes_to_where_the_limit_is_crossed(
    highest: int, start: int, asked: list[int]
) -> None:
    climb = Climb([1, 2, 4, 8], 10.0, start)
    seen = []
    while (clients := climb.next_clients) is not None:
        seen.append(clients)
        climb.add(Rung(clients, 1.0, 5.0 if clients <= highest else 20.0))
    assert seen == asked
    assert [rung.clients for rung in climb.ladder.rungs] == sorted(asked)
