"""The routing rules, and what front ends know."""

from __future__ import annotations

from collections import Counter

import pytest

from scaling.routing import RULES, CountedView, ReportedView


def _view(*images: int) -> CountedView:
    view = CountedView(len(images))
    for replica, count in enumerate(images):
        for _ in range(count):
            view.sent(replica)
    return view


@pytest.mark.parametrize("name", RULES)
def test_one_replica_gets_everything(name: str) -> None:
    rule = RULES[name](1, "seed")
    assert {rule(_view(3)) for _ in range(20)} == {0}


@pytest.mark.parametrize("name", RULES)
def test_equal_replicas_get_equally_much(name: str) -> None:
    rule, view = RULES[name](5, "seed"), _view(2, 2, 2, 2, 2)
    chosen = Counter(rule(view) for _ in range(5000))
    assert [*sorted(chosen)] == [0, 1, 2, 3, 4]
    assert max(chosen.values()) < 1.15 * min(chosen.values())


def test_round_robin_takes_turns() -> None:
    rule = RULES["round robin"](3, "seed")
    first = rule(_view(0, 0, 0))
    assert [rule(_view(9, 9, 9)) for _ in range(4)] == [(first + k) % 3 for k in range(1, 5)]


def test_least_takes_the_one_with_the_fewest() -> None:
    rule = RULES["least"](4, "seed")
    assert {rule(_view(3, 1, 2, 1)) for _ in range(200)} == {1, 3}


def test_two_choices_never_take_the_fullest() -> None:
    rule = RULES["two choices"](3, "seed")
    chosen = Counter(rule(_view(0, 5, 9)) for _ in range(3000))
    # Of three pairs of different replicas, two have the first one.
    assert chosen[2] == 0
    assert 1800 < chosen[0] < 2200


def test_a_report_replaces_what_was_believed() -> None:
    truth = _view(4, 0)
    view = ReportedView(truth)
    view.sent(1)
    assert [*view.images] == [4, 1]
    truth.answered(0)
    view.answered(1)
    view.answered(1)
    assert [*view.images] == [4, 0]
    view.refresh()
    assert [*view.images] == [3, 0]
