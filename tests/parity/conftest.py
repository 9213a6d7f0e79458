"""The two sides, started once."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.parity.comparison import differences
from tests.parity.messages import Case, Outcome
from tests.parity.sides import OURS, REFERENCE, REFERENCE_PYTHON, SideProcess

_ENVIRONMENT = Path(__file__).parents[2] / ".venv-reference"


@pytest.fixture(scope="session")
def reference() -> Iterator[SideProcess]:
    """torchpipe, in a virtual environment of its own."""
    python = os.environ.get(REFERENCE_PYTHON)
    if python is None:
        if not (_ENVIRONMENT / ".installed").exists():
            pytest.skip(f"no {_ENVIRONMENT.name} with torchpipe; `make test-parity` makes it")
        python = str(_ENVIRONMENT / "bin" / "python")
    with SideProcess(python, REFERENCE, starts_again=True) as side:
        yield side


@pytest.fixture(scope="session")
def ours() -> Iterator[SideProcess]:
    """This project, under torchpipe's API."""
    with SideProcess(sys.executable, OURS) as side:
        yield side


@pytest.fixture(scope="session")
def reference_raised(reference: SideProcess) -> Callable[[Case], str | None]:
    """What the only call of a case raises in torchpipe."""

    def raised(case: Case) -> str | None:
        (answer,) = reference.run(case).answers
        return answer.raised

    return raised


@pytest.fixture(scope="session")
def agree(reference: SideProcess, ours: SideProcess) -> Callable[[Case], Outcome]:
    """Runs a case on both sides, which must do the same; gives ours."""

    def run(case: Case) -> Outcome:
        theirs = reference.run(case)
        assert theirs.refused is None, f"torchpipe refuses {case.document}: {theirs.refused}"
        outcome = ours.run(case)
        found = differences(case, theirs, outcome)
        assert not found, "\n".join([str(case.document), *found])
        return outcome

    return run
