"""The same graphs, made by hypothesis, give the same in both runtimes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given

from tests.parity.graphs import chains, examples, networks, sequences
from tests.parity.messages import Case

pytestmark = pytest.mark.timeout(1800)


@examples(150)
@given(case=sequences())
def test_a_sequence_gives_the_same(agree: Callable[[Case], object], case: Case) -> None:
    agree(case)


# torchpipe takes half a second to close a pipe of several nodes.
@examples(40)
@given(case=chains())
def test_nodes_in_a_row_give_the_same(agree: Callable[[Case], object], case: Case) -> None:
    agree(case)


@examples(40)
@given(case=networks())
def test_forks_and_joins_give_the_same(agree: Callable[[Case], object], case: Case) -> None:
    agree(case)
