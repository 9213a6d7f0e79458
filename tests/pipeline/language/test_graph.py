"""The graph: what may follow what, and the parts that filters skip."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.config import parse_config
from pipeline.errors import PipelineConfigError, PipelineInputError
from pipeline.language.graph import Graph, Mapped

N = {"backend": "TestDouble"}
# The example of torchpipe's documentation of filters.
FORKED: dict[str, Any] = {
    "r_1": {**N, "next": "a_1,b_1"},
    "a_1": {**N, "next": "a_2_1,a_2_2"},
    "a_2_1": {**N, "next": "r_2"},
    "a_2_2": {**N, "next": "r_2"},
    "b_1": {**N, "next": "b_2"},
    "b_2": {**N, "next": "r_2"},
    "r_2": {**N, "map": "a_2_1[result:data],a_2_2[result:x],b_2[result:y]"},
}


def graph(document: dict[str, Any]) -> Graph:
    return parse_config(document).graph


def refusal(document: dict[str, Any]) -> str:
    with pytest.raises(PipelineConfigError) as caught:
        parse_config(document)
    return str(caught.value)


def test_parts_are_those_of_torchpipes_example() -> None:
    forked = graph(FORKED)
    assert forked.independent_part("a_1") == {"a_1", "a_2_1", "a_2_2"}
    assert forked.serial_part("b_1") == {"b_1", "b_2"}
    assert forked.serial_part("a_1") == {"a_1"}
    assert forked.independent_part("b_1") == {"b_1", "b_2"}
    assert forked.independent_part("r_1") == set(FORKED)
    assert forked.roots == ["r_1"]
    assert not forked.is_chain
    assert forked.predecessors["r_2"] == ("a_2_1", "a_2_2", "b_2")


def test_order_puts_every_node_before_those_that_follow_it() -> None:
    order = graph(dict(reversed(FORKED.items()))).upstream_first()
    assert sorted(order) == sorted(FORKED)
    for name, node in FORKED.items():
        for following in node.get("next", "").split(","):
            assert not following or order.index(name) < order.index(following)


def test_a_map_is_read_key_by_key() -> None:
    node = parse_config(
        {
            "a": {**N, "next": "b"},
            "b": {**N, "map": " a [ result : data , data : before ] "},
        }
    ).nodes["b"]
    assert node.place.mapping == (Mapped("a", "result", "data"), Mapped("a", "data", "before"))


@pytest.mark.parametrize(
    "text",
    [
        "a",
        "a[]",
        "a[x]",
        "a[x:y:z]",
        "a[x:data]b[x:y]",
        "a[x:data],",
        "a[x:d],b[y:d]",
        "[x:y],b[z:w]",
    ],
)
def test_a_map_that_cannot_be_read_says_how_it_is_written(text: str) -> None:
    message = refusal({"a": {**N, "next": "b"}, "b": {**N, "map": text}})
    assert 'expected keys by node, each once: "B[result:x],C[result:data]"' in message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"r_2": {**N}}, "[r_2] follows several nodes (a_2_1, a_2_2, b_2) and needs a map"),
        ({"b_2": {**N, "next": "r_3"}}, "next = 'r_3', which is no node; did you mean"),
        ({"b_2": {**N, "next": "r_2,r_1"}}, "nodes form a cycle: r_1 -> "),
        ({"b_2": {**N, "next": "r_2,r_2"}}, "[b_2] next names a node twice"),
        ({"r_1": {**FORKED["r_1"], "map": "b_1[x:data]"}}, "[r_1] has a map, but no node names it"),
        ({"b_2": {**FORKED["b_2"], "map": "a_1[x:data]"}}, "which does not come before it"),
        (
            {"b_2": {**FORKED["b_2"], "map": "bb_1[x:data]"}},
            "'bb_1' is no node; did you mean 'b_1'",
        ),
        ({"b_2": {**FORKED["b_2"], "map": "b_1[result:x]"}}, "gives x, and no 'data'"),
        (
            {"b_2": {**FORKED["b_2"], "filter": "swop"}},
            "unknown filter 'swop'; did you mean 'swap'",
        ),
        ({"b_2": {**FORKED["b_2"], "filter": "Skip", "or": True}}, "filter = 'Skip' differ"),
    ],
)
def test_mistakes_are_refused_at_load(changes: dict[str, Any], words: str) -> None:
    assert words in refusal({**FORKED, **changes})


def test_entering_in_the_middle_needs_all_that_is_joined_behind() -> None:
    forked = graph(FORKED)
    assert forked.from_entry("r_1") == set(FORKED)
    assert forked.from_entry("r_2") == {"r_2"}
    with pytest.raises(PipelineInputError, match="node 'r_2' behind it also needs what"):
        forked.from_entry("b_1")


def test_a_jump_leads_to_where_items_can_enter() -> None:
    document = {**FORKED, "all": {"backend": "MapReduce", "jump": "b_1"}}
    assert "[all] jump = 'b_1': an item cannot enter at 'b_1': node 'r_2' behind it" in refusal(
        document
    )


@pytest.mark.parametrize(
    ("jump", "words"),
    [("beyond", "jump = 'beyond' is no node"), ("first", "that way leads back to 'all'")],
)
def test_a_jump_leads_somewhere_and_not_back(jump: str, words: str) -> None:
    document = {
        "first": {**N, "next": "all"},
        "all": {"backend": "MapReduce", "jump": jump},
    }
    assert words in refusal(document)
