"""What a Python backend raises arrives at the caller as the same exception."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.parity.messages import EVENTS, LIST, SINGLE, Call, Case, Outcome

pytestmark = pytest.mark.timeout(1800)


@pytest.mark.parametrize("error", ["IndexError", "RuntimeError", "TypeError", "ValueError"])
@pytest.mark.parametrize("kind", [SINGLE, LIST, EVENTS])
def test_an_exception_keeps_its_class_and_text(
    agree: Callable[[Case], Outcome],
    reference_raised: Callable[[Case], str | None],
    error: str,
    kind: str,
) -> None:
    case = Case({"@a": {"backend": "ParityRaise", "error": error}}, [Call([{"data": 1}], kind)])

    (answer,) = agree(case).answers

    assert answer.raised == reference_raised(case) == f"{error}: of a backend"
