"""Backends that change an item's keys."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from pipeline import PipelineConfigError, pipe


def run_one(config: dict[str, Any], item: dict[str, Any]) -> dict[str, Any]:
    with pipe(config if "backend" not in config else {"node": config}) as run:
        run(item)
    return item


def test_key_a_is_copied_to_key_b_and_the_data_handed_on() -> None:
    item = run_one(
        {"backend": "KeyA2KeyB", "key_a": "color", "key_b": "was"}, {"data": 1, "color": "rgb"}
    )
    assert (item["result"], item["was"], item["color"]) == (1, "rgb", "rgb")


def test_behind_a_backend_it_keeps_that_ones_result() -> None:
    backend = "S[FloatTensor,KeyA2KeyB(key_a=data,key_b=float),SqueezeTensor]"
    item = run_one({"backend": backend}, {"data": torch.ones(1, 2, dtype=torch.uint8)})
    assert item["float"].tolist() == [[1.0, 1.0]]
    assert item["result"].tolist() == [1.0, 1.0]


def test_a_key_that_is_not_there_fails_its_item_alone() -> None:
    items = [{"data": 1}, {"data": 2, "color": "rgb"}]
    with pipe({"node": {"backend": "KeyA2KeyB", "key_a": "color", "key_b": "was"}}) as run:
        run(items)
    assert "the item has no key 'color'" in str(items[0]["error"])
    assert items[1]["result"] == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "KeyA2KeyB needs key_a and key_b"),
        ({"key_a": "result", "key_b": "x"}, 'it is key_a = "data"'),
        ({"key_a": "x", "key_b": "data"}, "would be replaced at once"),
    ],
)
def test_copies_that_cannot_be_are_refused(settings: dict[str, str], message: str) -> None:
    with pytest.raises(PipelineConfigError, match=message):
        pipe({"node": {"backend": "KeyA2KeyB", **settings}})


def test_remove_v0_takes_keys_away_from_the_nodes_behind() -> None:
    config = {
        "first": {"backend": "RemoveV0", "remove": "color, unknown", "next": "second"},
        "second": {"backend": "KeyA2KeyB", "key_a": "color", "key_b": "was"},
    }
    item = run_one(config, {"data": 1, "color": "rgb"})
    assert "the item has no key 'color'" in str(item["error"])


@pytest.mark.parametrize("keys", ["data", "color, TASK_RESULT_KEY"])
def test_remove_v0_refuses_what_items_need(keys: str) -> None:
    with pytest.raises(PipelineConfigError, match="cannot be removed"):
        pipe({"node": {"backend": "RemoveV0", "remove": keys}})


@pytest.mark.parametrize("backend", ["RemoveV0", "RemoveV0(remove=TASK_BOX_KEY)"])
def test_remove_v0_takes_torchpipes_constants_for_keys(backend: str) -> None:
    config = {
        "first": {"backend": backend, "remove": "TASK_BOX_KEY", "next": "second"},
        "second": {"backend": "KeyA2KeyB", "key_a": "_box", "key_b": "was"},
    }
    item = run_one(config, {"data": 1, "_box": [0, 0, 1, 1]})
    assert "the item has no key '_box'" in str(item["error"])


def test_copy_split_feeds_a_map_reduce() -> None:
    config = {
        "split": {"backend": "CopySplit", "split_size": 3, "next": "each"},
        "each": {"backend": "MapReduce", "jump": "work"},
        "work": {"backend": "Identity"},
    }
    item = run_one(config, {"data": "x", "node_name": "split"})
    assert item["result"] == ["x", "x", "x"]
    with pytest.raises(PipelineConfigError, match="split_size = 0: expected a whole number from 1"):
        pipe({"node": {"backend": "CopySplit", "split_size": 0}})


@pytest.mark.parametrize(
    ("data", "rows"),
    [(torch.zeros(3, 2), 3), ([torch.zeros(2, 2), torch.zeros(5)], 2), (np.zeros((4, 1)), 4)],
)
def test_a_tensor_counts_for_its_rows(data: Any, rows: int) -> None:
    item = run_one({"backend": "S[SetTensorRequestSize,Identity]"}, {"data": data})
    assert item["request_size"] == rows
    assert item["result"] is data


@pytest.mark.parametrize("data", ["text", torch.tensor(1), torch.zeros(0, 3), []])
def test_what_has_no_rows_fails(data: Any) -> None:
    item = run_one({"backend": "SetTensorRequestSize"}, {"data": data})
    assert "SetTensorRequestSize takes" in str(item["error"])
    assert "request_size" not in item
