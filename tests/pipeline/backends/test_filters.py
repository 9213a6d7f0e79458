"""Filters in sequences and on nodes: what each does to data and result."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline import PipelineConfigError, Status, pipe, register_backend, register_filter
from pipeline.backends.filters import filter_named
from pipeline.backends.interface import Item

DOUBLE = {"backend": "TestDouble", "test_max": 4}


def run(document: dict[str, Any], *data: Any, **extra: Any) -> list[dict[str, Any]]:
    items = [{"data": value, **extra} for value in data]
    with pipe(document) as running:
        running(items)
    return items


def sequence(expression: str, *data: Any) -> list[dict[str, Any]]:
    return run({"only": {"backend": expression, "test_max": 4}}, *data)


@register_filter("TestOnlySmall")
def only_small(item: Item) -> Status:
    """Lets small results through and ends the others."""
    if item["result"] > 10:
        return Status.BREAK
    item["data"] = item.pop("result")
    return Status.RUN


@register_filter("TestNever")
def never(item: Item) -> Status:  # noqa: ARG001
    """Leaves every item out."""
    return Status.SKIP


@register_filter("TestBroken")
def broken(item: Item) -> Status:
    raise LookupError(f"cannot judge {item['data']}")


@register_filter("TestWrong")
def wrong(item: Item) -> Status:  # noqa: ARG001
    return "Run"  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("expression", "result"),
    [
        ("S[TestDouble,TestDouble]", 20),  # swap: 5 -> 10 -> 20
        ("S[(Run)TestDouble,(swap)TestDouble]", 20),
        ("S[TestDouble,(Run)TestDouble]", 10),  # runs on the data of the first: 5
        ("S[TestDouble,(Continue)TestDouble]", 10),
        ("S[TestDouble,(Skip)TestDouble]", 10),
        ("S[TestDouble,(Skip)TestDouble,TestDouble]", 20),
        ("S[TestDouble,(Break)TestDouble,TestDouble]", 10),
        ("S[TestDouble,(serial_skip)TestDouble,TestDouble]", 10),
        ("S[TestDouble,(SubGraphSkip)TestDouble,TestDouble]", 10),
        ("S[TestDouble,(or)TestDouble,TestDouble]", 20),
        ("S[TestDouble,(TestOnlySmall)TestDouble,(TestOnlySmall)TestDouble]", 20),
    ],
)
def test_in_a_sequence(expression: str, result: int) -> None:
    assert [item["result"] for item in sequence(expression, 5)] == [result]


@pytest.mark.parametrize("name", ["or", "else"])
def test_or_runs_where_the_backend_before_failed(name: str) -> None:
    bad, good = sequence(f"S[TestDouble,({name})TestText]", "boom", 4)
    assert bad["result"] == "text boom"
    assert "error" not in bad
    assert good["result"] == 8


def test_what_fails_in_the_fallback_too_has_its_error() -> None:
    (item,) = sequence("S[TestDouble,(or)TestDouble]", "boom")
    assert "result" not in item
    assert "boom is no number" in str(item["error"])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Error", "filter 'Error' gave Error"),
        ("TestBroken", "cannot judge 3"),
        ("TestWrong", "gave 'Run', expected a pipeline.Status"),
    ],
)
def test_a_filter_that_fails_an_item_is_named(name: str, words: str) -> None:
    for document in (
        {"only": {"backend": f"S[TestDouble,({name})TestDouble]"}},
        {"a": {**DOUBLE, "next": "b"}, "b": {**DOUBLE, "filter": name}},
    ):
        (item,) = run(document, 3)
        assert "result" not in item
        assert words in str(item["error"])


def test_items_of_a_batch_go_their_own_ways() -> None:
    items = sequence("S[TestDouble,(TestOnlySmall)TestDouble]", 2, 9, 3, "boom")
    assert [item.get("result") for item in items] == [8, 18, 12, None]


def test_before_the_first_of_a_sequence_too() -> None:
    assert [item["result"] for item in sequence("S[(or)TestDouble]", 2)] == [4]


@pytest.mark.parametrize(
    ("name", "results"),
    [
        ("swap", {"last": 20}),
        ("Run", {"last": 10}),
        ("Skip", {"last": 10}),
        ("Break", {"result": 10}),
    ],
)
def test_on_a_node(name: str, results: dict[str, int]) -> None:
    document = {
        "first": {**DOUBLE, "next": "second"},
        "second": {**DOUBLE, "filter": name, "next": "last"},
        "last": {"backend": "TestKeep"},
    }
    (item,) = run(document, 5)
    assert {key: item[key] for key in results} == results


ENDS_IN_A_SEQUENCE = ["Break", "SerialSkip", "SubGraphSkip"]


@pytest.mark.parametrize(
    "document",
    [
        *({"only": {"backend": f"S[({name})TestDouble]"}} for name in ENDS_IN_A_SEQUENCE),
        {"only": {**DOUBLE, "filter": "Break"}},
        {"a": {"backend": "S[(Break)TestDouble]", "next": "b"}, "b": DOUBLE},
        {
            "a": {"backend": "S[(Break)TestDouble]", "next": "b,c"},
            "b": DOUBLE,
            "c": DOUBLE,
        },
        {
            "a": {**DOUBLE, "next": "b,c"},
            "b": {**DOUBLE, "map": "a[data:data]", "filter": "Break", "next": "d"},
            "c": {**DOUBLE, "next": "d"},
            "d": {**DOUBLE, "map": "b[result:data]"},
        },
    ],
)
def test_a_break_before_there_is_a_result_is_no_error(document: dict[str, Any]) -> None:
    (item,) = run(document, 2)
    assert set(item) == {"data", "stage_times_ms"}


class _Silent:
    def forward(self, items: list[dict[str, Any]]) -> None:
        """Give no result."""


register_backend(_Silent, "TestSilent")


@pytest.mark.parametrize(
    ("last", "result"), [("TestDouble", 8), ("TestSilent", None), ("S[TestSilent]", None)]
)
def test_what_runs_behind_a_break_in_an_inner_sequence_counts(last: str, result: Any) -> None:
    document = {
        "a": {"backend": "S[S[(Break)TestDouble],(Run)TestDouble]", "next": "b"},
        "b": {"backend": last},
    }
    (item,) = run(document, 2)
    assert item.get("result") == result
    assert ("error" in item) == (result is None)


def test_a_break_hides_no_failure() -> None:
    for document in (
        {"only": {"backend": "S[TestDouble,(Break)TestDouble]"}},
        {"a": {**DOUBLE, "next": "b"}, "b": {**DOUBLE, "filter": "Break"}},
    ):
        (item,) = run(document, "boom")
        assert "boom is no number" in str(item["error"])


def test_an_item_that_a_sequence_has_ended_is_taken_up_by_an_or() -> None:
    document = {
        "a": {"backend": "S[(Break)TestDouble]", "next": "b"},
        "b": {"backend": "TestText", "or": True},
    }
    (item,) = run(document, 2)
    assert item["result"] == "text 2"


@pytest.mark.parametrize(
    ("name", "outcome"),
    [
        ("run", {"result": 16}),
        ("or", {"result": 16}),
        ("Skip", {}),
        ("SerialSkip", {}),
        ("Break", {}),
        ("Error", {"error": "node 'a': filter 'Error' gave Error"}),
    ],
)
def test_on_a_root(name: str, outcome: dict[str, Any]) -> None:
    document = {
        "a": {**DOUBLE, "filter": name, "next": "b"},
        "b": {**DOUBLE, "next": "c"},
        "c": DOUBLE,
    }
    (item,) = run(document, 2)
    given = {key: item[key] for key in item.keys() & {"result", "error"}}
    if name == "Skip":
        # What a skipped root leaves has no result: the default filter behind it ends the item.
        assert "node 'b': " in str(given["error"])
        assert "it had no result" in str(given.pop("error"))
    assert {key: str(value) for key, value in given.items()} == {
        key: str(value) for key, value in outcome.items()
    }


@pytest.mark.parametrize(("name", "key"), [("result2other", "other"), ("result2key_1", "key_1")])
def test_a_filter_that_keeps_what_it_hands_on(name: str, key: str) -> None:
    good, bad = sequence(f"S[TestDouble,({name})TestDouble,({name}),TestDouble]", 2, "boom")
    assert (good["result"], good[key]) == (16, 8)
    assert "boom is no number" in str(bad["error"])
    for backend in (f"S[TestSilent,({name})TestDouble]", f"S[({name})TestDouble]"):
        (without,) = run({"only": {"backend": backend}}, 2)
        assert "gave no result" in str(without["error"])
    (without,) = run({"only": {**DOUBLE, "filter": name}}, 2)
    assert "a filter ended the item's way, and it had no result" in str(without["error"])


@pytest.mark.parametrize("name", ["Skip", "SerialSkip", "SubGraphSkip", "Break", "TestNever"])
@pytest.mark.parametrize("joins", [False, True])
def test_an_item_that_a_filter_ends_without_a_result_has_no_error(name: str, joins: bool) -> None:
    last = {**DOUBLE, "filter": name}
    document: dict[str, Any] = {"join": last}
    if joins:
        document = {
            "start": {**DOUBLE, "next": "left,right"},
            "left": {**DOUBLE, "next": "join"},
            "right": {**DOUBLE, "next": "join"},
            "join": {**last, "map": "left[result:data],right[result:other]"},
        }
    (item,) = run(document, 2)
    assert item.keys().isdisjoint(("result", "error"))


def test_a_sequence_that_leaves_out_all_its_members_fails_its_item() -> None:
    (item,) = run({"only": {"backend": "S[(Skip)TestDouble,(Skip)TestDouble]"}}, 2)
    assert "gave no result" in str(item["error"])


def test_an_item_without_a_result_fails_where_its_way_ended() -> None:
    for name in ("swap", "result2other"):
        document = {
            "start": {**DOUBLE, "next": "left,right"},
            "left": {**DOUBLE, "next": "join"},
            "right": {**DOUBLE, "next": "join"},
            "join": {**DOUBLE, "filter": name, "map": "left[result:data],right[result:other]"},
        }
        (item,) = run(document, 2)
        expected = "node 'join': a filter ended the item's way, and it had no result"
        assert str(item["error"]) == expected
        assert item["error"].node == "join"


def test_serial_skip_leaves_out_the_row_and_subgraph_skip_the_part() -> None:
    document: dict[str, Any] = {
        "start": {**DOUBLE, "next": "a,b"},
        "a": {**DOUBLE, "next": "a2"},
        "a2": {**DOUBLE, "next": "join"},
        "b": {**DOUBLE, "next": "b_left,b_right"},
        "b_left": {**DOUBLE, "next": "join"},
        "b_right": {**DOUBLE, "next": "join"},
        "join": {
            "backend": "TestKeep",
            "map": "a2[result:data],b_left[result:left],b_right[result:right]",
        },
    }
    (item,) = run(document, 1)
    assert (item["last"], item["left"], item["right"]) == (8, 8, 8)
    document["a"]["filter"] = "SerialSkip"
    (item,) = run(document, 1)
    assert (item["last"], item["left"], item["right"]) == (2, 8, 8)
    document["b"]["filter"] = "SubGraphSkip"
    (item,) = run(document, 1)
    assert (item["last"], item["left"], item["right"]) == (2, 2, 2)


def test_or_on_a_node_takes_up_what_failed_before_it() -> None:
    document = {
        "decode": {**DOUBLE, "next": "rescue"},
        "rescue": {"backend": "TestText", "or": True, "next": "last"},
        "last": {"backend": "TestKeep"},
    }
    bad, good = run(document, "boom", 2)
    assert bad["last"] == "text boom"
    assert good["last"] == 4


def test_break_ends_the_item_whatever_else_is_under_way() -> None:
    document = {
        "start": {**DOUBLE, "next": "a,b"},
        "a": {**DOUBLE, "filter": "Break", "next": "join"},
        "b": {**DOUBLE, "next": "join"},
        "join": {"backend": "TestKeep", "map": "a[result:data],b[result:b]"},
    }
    (item,) = run(document, 3)
    assert item["result"] == 6
    assert "last" not in item


@pytest.mark.parametrize(
    ("backend", "words"),
    [
        ("S[(swop)TestDouble]", "unknown filter 'swop'; did you mean 'swap'?"),
        ("(or)TestDouble", 'give the node filter = "or"'),
        ("Torch[(or)TestDouble]", 'give the node filter = "or"'),
    ],
)
def test_filters_that_are_not_there_or_out_of_place(backend: str, words: str) -> None:
    with pytest.raises(PipelineConfigError) as caught:
        pipe({"only": {"backend": backend}})
    assert words in str(caught.value)


def test_a_name_is_registered_once() -> None:
    assert filter_named("TestOnlySmall") is only_small
    with pytest.raises(ValueError, match="filter 'swap' is registered already"):
        register_filter("swap")(only_small)


@register_backend(name="TestCountsRuns")
class CountsRuns:
    def forward(self, items: list[dict[str, Any]]) -> None:
        for item in items:
            item["result"] = item["data"]
            item["runs"] = item.get("runs", 0) + 1


@register_filter("TestLimit")
class Limit:
    """Runs for data up to the key `limit` of its node."""

    def init(self, config: dict[str, Any]) -> None:
        self.limit = int(config["limit"])

    def forward(self, item: dict[str, Any]) -> Status:
        return Status.RUN if item["data"] <= self.limit else Status.SKIP


def test_a_class_has_an_object_at_each_place_with_the_keys_of_its_node() -> None:
    counts = {"backend": "TestCountsRuns"}
    graph = {
        "first": {**counts, "next": "low"},
        "low": {**counts, "filter": "TestLimit", "limit": 2, "next": "high"},
        "high": {**counts, "filter": "TestLimit", "limit": "5"},
    }
    sequence = {"only": {"backend": "S[TestCountsRuns,(TestLimit)TestCountsRuns]", "limit": 2}}
    for document, runs in ((graph, [3, 2, 1]), (sequence, [2, 1, 1])):
        assert [item["runs"] for item in run(document, 1, 3, 7)] == runs


def test_a_class_that_is_no_filter_or_whose_init_raises_is_refused() -> None:
    with pytest.raises(TypeError, match=r"dict has no forward\(item\)"):
        register_filter("TestNoFilter")(dict)
    for document in (
        {"a": {"backend": "TestCountsRuns", "filter": "TestLimit"}},
        {"a": {"backend": "S[TestCountsRuns,(TestLimit)TestCountsRuns]"}},
    ):
        with pytest.raises(PipelineConfigError, match="filter 'TestLimit': KeyError: 'limit'"):
            pipe(document)
