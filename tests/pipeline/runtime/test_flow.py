"""Items in graphs that fork and join: results, failures, isolation, order."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import pytest

from pipeline import DeadlinePassedError, ItemsFailedError, Pipe, PipelineInputError, pipe
from pipeline.backends.interface import Backend, InstanceConfig, Item
from pipeline.backends.registry import register

DOUBLE = {"backend": "TestDouble", "test_max": 4}
DIAMOND: dict[str, Any] = {
    "start": {**DOUBLE, "next": "left,right"},
    "left": {**DOUBLE, "next": "join"},
    "right": {"backend": "TestText", "next": "join"},
    "join": {"backend": "TestPair", "map": "left[result:data],right[result:other,data:seen]"},
}


@register("TestPair")
class Pair(Backend):
    """Puts what two branches gave side by side."""

    def init(self, config: InstanceConfig) -> None:
        pass

    def forward(self, items: Sequence[Item]) -> None:
        for item in items:
            item["result"] = (item["data"], item["other"])


@register("TestMeet")
class Meet(Backend):
    """Waits until another node's instance is in its forward, too."""

    together: ClassVar[threading.Barrier] = threading.Barrier(2)

    def init(self, config: InstanceConfig) -> None:
        pass

    def forward(self, items: Sequence[Item]) -> None:
        Meet.together.wait(30)
        for item in items:
            item["result"] = item["data"]


@pytest.fixture
def diamond() -> Iterator[Pipe]:
    with pipe(DIAMOND) as running:
        yield running


def test_a_join_gets_what_its_map_names(diamond: Pipe) -> None:
    item = {"data": 3, "mine": "kept"}
    diamond(item)
    assert item["result"] == (12, "text 6")
    assert (item["data"], item["mine"], item["seen"]) == (3, "kept", 6)
    assert set(item["stage_times_ms"]) == {
        f"{node}.{stage}" for node in DIAMOND for stage in ("queue", "forward")
    }


def test_branches_of_one_item_run_side_by_side() -> None:
    document = {**DIAMOND, "left": {"backend": "TestMeet", "next": "join"}}
    document["right"] = {"backend": "TestMeet", "next": "join"}
    item = {"data": 1}
    with pipe(document) as running:
        running(item)
    assert item["result"] == (2, 2)


def test_what_a_branch_puts_into_its_item_the_others_do_not_see() -> None:
    document = {
        "start": {**DOUBLE, "next": "left,right"},
        "left": {"backend": "TestKeep", "next": "join"},
        "right": {**DOUBLE, "next": "join"},
        "join": {"backend": "TestPair", "map": "left[result:data],right[last:other]"},
    }
    item, odd = {"data": 1}, {"data": 1, 7: "a key that is no text"}
    with pipe(document) as running:
        running([item, odd])
    assert str(item["error"]) == (
        "node 'join': its map takes 'last' from 'right', which has data, result"
    )
    assert "its map takes 'last' from 'right', which has 7, data, result" in str(odd["error"])


def test_a_map_takes_the_context_along() -> None:
    """That of the first node in it that has one, if the map does not name another."""
    document = {**DIAMOND, "join": {**DIAMOND["join"], "next": "last"}}
    document["last"] = {"backend": "TestKeep", "map": "join[result:data],start[result:context]"}
    shared: dict[str, int] = {}
    items = [{"data": 1, "context": shared}, {"data": 2}]
    with pipe({**DIAMOND}) as running:
        running(items)
    assert items[0]["context"] is shared
    assert "context" not in items[1]
    with pipe(document) as running:
        running(items[0])
    assert items[0]["context"] == 2


def test_a_failed_branch_fails_its_item_alone(diamond: Pipe) -> None:
    items = [{"data": value} for value in (1, "boom", 3)]
    diamond(items)
    assert [item.get("result") for item in items] == [(4, "text 2"), None, (12, "text 6")]
    assert str(items[1]["error"]) == "node 'start': boom is no number"
    assert set(items[1]) == {"data", "error", "stage_times_ms"}


def test_several_ends_give_results_by_node() -> None:
    document = {
        "start": {**DOUBLE, "next": "left,right"},
        "left": DOUBLE,
        "right": {"backend": "TestText"},
    }
    with pipe(document) as running:
        item = {"data": 2, "results": "stale"}
        running(item)
        assert item["results"] == {"left": 8, "right": "text 4"}
        assert "result" not in item
        one_way = {"data": 5, "node_name": "right"}
        running(one_way)
        assert one_way["result"] == "text 5"


def test_entries_in_the_middle(diamond: Pipe) -> None:
    item = {"data": 5, "other": 6, "node_name": "join"}
    diamond(item)
    assert item["result"] == (5, 6)
    good = {"data": 1}
    with pytest.raises(PipelineInputError, match="cannot enter at 'left': node 'join' behind it"):
        diamond([good, {"data": 5, "node_name": "left"}])
    assert good == {"data": 1}


def test_deadlines_hold_on_the_way(gate: Any) -> None:
    with pipe({**DIAMOND, "left": {"backend": "TestGated", "next": "join"}}) as running:
        item = {"data": 1}
        running(item, timeout_ms=30)
        assert isinstance(item["error"], DeadlinePassedError)
        gate.open.set()


def test_raise_on_error_says_which_failed(diamond: Pipe) -> None:
    items = [{"data": value} for value in (1, "boom", "boom")]
    with pytest.raises(ItemsFailedError, match="2 of 3 items failed, the first of them item 1"):
        diamond(items, raise_on_error=True)
    assert items[0]["result"] == (4, "text 2")
    diamond(items[:1], raise_on_error=True)


def test_no_item_is_lost_or_swapped_whatever_fails() -> None:
    document = {
        "start": {**DOUBLE, "instance_num": 2, "next": "left,right,skipped"},
        "left": {**DOUBLE, "instance_num": 2, "next": "join"},
        "right": {"backend": "S[TestDouble,(or)TestText]", "test_max": 3, "next": "join"},
        "skipped": {**DOUBLE, "filter": "Skip", "next": "join"},
        "join": {
            "backend": "TestPair",
            "instance_num": 2,
            "map": "left[result:data],right[result:other],skipped[result:third]",
        },
    }

    def call(seed: int) -> None:
        numbers = random.Random(seed)  # noqa: S311 (test data)
        values = [numbers.choice([numbers.randrange(10**6), "boom"]) for _ in range(7)]
        items = [{"data": value} for value in values]
        running(items)
        for value, item in zip(values, items, strict=True):
            if value == "boom":
                assert "result" not in item
                assert "boom is no number" in str(item["error"])
            else:
                assert item["result"] == (value * 4, value * 4)
                assert item["third"] == value * 2

    with pipe(document) as running, ThreadPoolExecutor(10) as callers:
        list(callers.map(call, range(300)))
        assert running.nodes["start"].counts.items == 2100


def test_a_logical_node_runs_the_instances_of_another_at_its_own_place() -> None:
    document = {
        "in": {"next": "rec,rec.2"},
        "rec": {**DOUBLE, "next": "final", "2": {"next": "twice", "backend": "TestText"}},
        "twice": {**DOUBLE, "next": "final"},
        "final": {"map": "rec[result:data],twice[result:other]"},
    }
    with pipe(document) as running:
        items = [{"data": number} for number in range(20)]
        running(items)
        assert running.nodes["rec.2"] is running.nodes["rec"]
        assert running.nodes["rec"].counts.items == 40
        entered = {"data": 1, "node_name": "rec.2"}
        with pytest.raises(PipelineInputError, match=r"cannot enter at 'rec\.2'"):
            running(entered)
    assert [(item["result"], item["other"]) for item in items] == [
        (2 * number, 4 * number) for number in range(20)
    ]


def test_a_logical_node_in_a_row_with_its_own() -> None:
    document = {"a": {**DOUBLE, "next": "a.2"}, "a.2": {"next": "b"}, "b": DOUBLE}
    item = {"data": 1}
    with pipe(document) as running:
        running(item)
    assert item["result"] == 8


def test_elements_may_enter_at_a_logical_node() -> None:
    document = {
        "all": {"backend": "MapReduce", "jump": "each.2"},
        "each": {**DOUBLE, "next": "far", "2": {}},
        "far": DOUBLE,
    }
    item = {"data": [1, 2], "node_name": "all"}
    with pipe(document) as running:
        running(item)
    assert item["result"] == [2, 4]


def test_a_single_node_takes_any_node_name() -> None:
    item = {"data": 1, "node_name": "jpg_decoder"}
    with pipe({"backend": "TestDouble"}) as running:
        running(item)
    assert item["result"] == 2
    with pipe({"a": DOUBLE, "b": DOUBLE}) as running, pytest.raises(PipelineInputError):
        running(item)


def test_a_map_may_leave_out_whom_it_takes_from() -> None:
    document = {
        "start": {**DOUBLE, "next": "b,a"},
        "b": {**DOUBLE, "next": "join"},
        "a": {"backend": "TestText", "next": "join"},
        "join": {"map": " [result:data, TASK_DATA_KEY : TASK_BOX_KEY]"},
    }
    item = {"data": 1}
    with pipe(document) as running:
        running(item)
    # Of several nodes before it the first by name.
    assert (item["result"], item["_box"]) == ("text 2", 2)


def test_two_pipes_with_the_same_names_do_not_collide() -> None:
    with pipe(DIAMOND) as one, pipe({"start": {"backend": "TestText"}}) as other:
        first, second = {"data": 1}, {"data": 1}
        one(first)
        other(second)
    assert (first["result"], second["result"]) == ((4, "text 2"), "text 1")
