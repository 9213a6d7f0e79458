"""MapReduce gives what a loop around torchpipe's nodes gives; 0.2.25 has no MapReduce itself."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.parity.comparison import comparable
from tests.parity.graphs import examples, expressions, nodes, numbers
from tests.parity.messages import Call, Case
from tests.parity.sides import SideProcess

pytestmark = pytest.mark.timeout(1800)


@st.composite
def _element_nodes(draw: st.DrawFn) -> dict[str, Any]:
    """The way of the elements: two nodes, the first of which reads both of their keys."""
    raises = draw(st.booleans())
    first = draw(expressions(raises, depth=1))
    document = {
        "@first": draw(nodes(st.just(f"S[ParityCombine,{first}]"))),
        "@second": draw(nodes(expressions(raises, depth=1))),
    }
    document["@first"] |= {"keys": "one/other", "next": "@second"}
    return document


@examples(40)
@given(elements=_element_nodes(), data=st.integers(0, 30), values=numbers(5))
def test_map_reduce_is_the_loop(
    reference: SideProcess,
    ours: SideProcess,
    elements: dict[str, Any],
    data: int,
    values: list[int],
) -> None:
    others = [value * 7 % 11 for value in values]
    items = [
        {"data": data, "one": one, "other": other, "caller": "c"}
        for one, other in zip(values, others, strict=True)
    ]
    loop = reference.run(Case(elements, [Call([item]) for item in items]))
    results = [answer.items[0].get("result") for answer in loop.answers]

    each = {"backend": "MapReduce", "split": "one,other", "jump": "@first", "merge": "result"}
    whole = {"data": data, "one": values, "other": others, "caller": "c"}
    (answer,) = ours.run(Case({"@each": each, **elements}, [Call([whole])])).answers

    if None in results:
        assert "result" not in answer.items[0]
    else:
        assert comparable(answer.items[0]) == comparable({**whole, "result": results})


def test_an_item_without_elements_gets_an_empty_list(ours: SideProcess) -> None:
    document = {
        "@each": {"backend": "MapReduce", "split": "one", "jump": "@node"},
        "@node": {"backend": "ParityAdd"},
    }
    (answer,) = ours.run(Case(document, [Call([{"data": 1, "one": []}])])).answers

    assert answer.items[0]["result"] == []
