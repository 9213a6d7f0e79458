"""What differs on purpose differs as the documentation says, and nothing is listed in vain."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.parity.differences import DIFFERENCES, Difference, Expected
from tests.parity.messages import Outcome
from tests.parity.sides import SideProcess

pytestmark = pytest.mark.timeout(1800)

_PAGE = Path(__file__).parents[2] / "docs" / "coming-from-torchpipe.md"


@pytest.mark.parametrize("difference", DIFFERENCES, ids=lambda one: one.name)
def test_each_side_does_what_is_said(
    reference: SideProcess, ours: SideProcess, difference: Difference
) -> None:
    assert difference.theirs != difference.ours
    _check(reference.run(difference.case), difference.theirs)
    _check(ours.run(difference.case), difference.ours)


def _check(outcome: Outcome, expected: Expected) -> None:
    if expected.refused:
        assert outcome.refused is not None
        assert outcome.refused.startswith(expected.refused)
        return
    assert outcome.refused is None
    items = [item for answer in outcome.answers for item in answer.items]
    for item, among in zip(items, expected.items, strict=True):
        assert {**item, **among} == item
        assert not set(expected.absent) & set(item)
    raised = outcome.answers[-1].raised or ""
    assert raised.startswith(expected.raised)
    assert bool(raised) == bool(expected.raised)


@pytest.mark.parametrize("difference", DIFFERENCES, ids=lambda one: one.name)
def test_the_documentation_has_it(difference: Difference) -> None:
    assert f"| {difference.name} |" in _PAGE.read_text(encoding="utf-8")
