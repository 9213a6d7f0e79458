"""Jump and MapReduce: elements of lists, and whole items, on a way through other nodes."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pipeline import NodeError, PipelineConfigError, Status, pipe, register_filter
from pipeline.backends.interface import Backend, InstanceConfig, Item
from pipeline.backends.registry import register
from pipeline.config import read_config
from pipeline.errors import ElementError

DOUBLE = {"backend": "TestDouble", "test_max": 4}
EACH: dict[str, Any] = {
    "all": {"backend": "MapReduce", "jump": "each", "next": "after"},
    "after": {"backend": "TestText"},
    "each": {**DOUBLE, "next": "again"},
    "again": DOUBLE,
}


@register("TestShow")
class Show(Backend):
    """Its result is a copy of the whole item; what it is asked for goes into keys of its own."""

    max = 4

    def init(self, config: InstanceConfig) -> None:
        pass

    def forward(self, items: Sequence[Item]) -> None:
        for item in items:
            item["result"] = dict(item)
            item["score"] = -item["data"] if isinstance(item["data"], int) else 0
            if item["data"] != "unlabelled":
                item["label"] = f"label {item['data']}"


def run(document: dict[str, Any], *items: dict[str, Any]) -> None:
    with pipe(document) as running:
        running(list(items))


def mistakes(document: dict[str, Any]) -> list[str]:
    return read_config(document)[1]


def test_results_come_in_order() -> None:
    items = [{"data": [1, 2, 3]}, {"data": []}, {"data": tuple(range(100))}]
    run(EACH, *items)
    assert items[0]["result"] == "text [4, 8, 12]"
    assert items[1]["result"] == "text []"
    assert items[2]["result"] == f"text {[4 * number for number in range(100)]}"


def test_an_element_is_a_copy_of_the_item_with_its_own_part_of_the_lists() -> None:
    document = {
        "all": {"backend": "MapReduce", "jump": "each", "split": "boxes, names"},
        "each": {"backend": "TestShow"},
    }
    image = object()
    item = {"data": image, "boxes": [1, 2], "names": ("a", "b"), "request_size": 1}
    run(document, item)
    assert item["result"] == [
        {"data": image, "boxes": 1, "names": "a"},
        {"data": image, "boxes": 2, "names": "b"},
    ]
    assert (item["boxes"], item["names"]) == ([1, 2], ("a", "b"))
    assert "label" not in item, "only what is merged comes back"


def test_several_keys_are_merged() -> None:
    document = {
        "all": {"backend": "MapReduce", "jump": "each", "merge": "label,score"},
        "each": {"backend": "TestShow"},
    }
    item, empty = {"data": [3, 4]}, {"data": []}
    document["all"]["next"] = "end"
    document["end"] = {"backend": "TestShow", "map": "all[label:data,score:score,label:label]"}
    run(document, item, empty)
    assert item["result"] == {"data": ["label 3", "label 4"], "score": [-3, -4]} | {
        "label": ["label 3", "label 4"]
    }
    assert empty["result"] == {"data": [], "score": [], "label": []}


def test_an_empty_split_makes_the_item_its_only_element() -> None:
    document = {
        "all": {"backend": "MapReduce", "jump": "each", "split": "", "merge": "score"},
        "each": {"backend": "TestShow"},
    }
    item = {"data": 5}
    run(document, item)
    assert (item["score"], item["label"]) == ([-5], "label 5")


def test_a_map_reduce_within_another_one() -> None:
    document = {
        "pages": {"backend": "MapReduce", "jump": "words"},
        "words": {"backend": "MapReduce", "jump": "each"},
        "each": {**DOUBLE, "instance_num": 2},
    }
    items = [{"data": [[1, 2], [], [3]]}, {"data": []}, {"data": [[1, "boom"], [2]]}]
    run(document, *items)
    assert [item.get("result") for item in items] == [[[2, 4], [], [6]], [], None]
    assert str(items[2]["error"]) == (
        "node 'pages': element 0: node 'words': element 1: node 'each': boom is no number"
    )
    outer = items[2]["error"].cause
    assert isinstance(outer, ElementError)
    assert isinstance(outer.error, NodeError)
    assert isinstance(outer.error.cause, ElementError)
    assert (outer.index, outer.error.cause.index) == (0, 1)


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ({"data": [1, "boom", "boom"]}, "element 1: node 'each': boom is no number"),
        ({"data": 7}, "split = 'data': expected a list of elements, got int"),
        ({"data": {1, 2}}, "expected a list of elements, got set"),
        ({"data": "text"}, "expected a list of elements, got str"),
        ({"data": np.zeros((3, 4))}, "got ndarray; list(...) makes one of its 3 rows"),
    ],
)
def test_a_bad_element_or_list_fails_its_item_alone(item: dict[str, Any], words: str) -> None:
    good = {"data": [1]}
    run(EACH, item, good)
    assert str(item["error"]).startswith("node 'all': ")
    assert words in str(item["error"])
    assert "result" not in item
    assert good["result"] == "text [4]"


def test_lists_of_different_lengths_and_keys_that_are_missing() -> None:
    document = {
        "all": {"backend": "MapReduce", "jump": "each", "split": "data,boxes", "merge": "label"},
        "each": {"backend": "TestShow"},
        "end": {"backend": "TestText", "map": "all[label:data]"},
    }
    document["all"]["next"] = "end"
    uneven = {"data": [1, 2, 3], "boxes": [1, 2]}
    missing = {"data": [1], "box": [1]}
    unlabelled = {"data": [1, "unlabelled"], "boxes": [1, 2]}
    good = {"data": [1], "boxes": [1]}
    run(document, uneven, missing, unlabelled, good)
    assert "need one length, got 'data' 3, 'boxes' 2" in str(uneven["error"])
    assert "the item has no 'boxes' to split: it has box, data" in str(missing["error"])
    assert "element 1: it has no 'label' to merge: it has boxes, data, result, score" in str(
        unlabelled["error"]
    )
    assert good["result"] == "text ['label 1']"


def test_a_long_list_is_not_on_its_way_all_at_once(gate: Any) -> None:
    document = {
        "all": {"backend": "MapReduce", "jump": "each"},
        "each": {"backend": "TestGated", "test_max": 100_000},
    }
    item = {"data": list(range(50_000))}
    with pipe(document) as running:
        caller = threading.Thread(target=running, args=(item,))
        caller.start()
        assert gate.entered.acquire(timeout=30)
        gate.open.set()
        caller.join(60)
        assert not caller.is_alive()
        assert max(running.nodes["each"].counts.batches.by_size) <= 1024
    assert item["result"] == list(range(0, 100_000, 2))


def test_nothing_more_is_sent_after_an_element_has_failed() -> None:
    document = {"all": {"backend": "MapReduce", "jump": "each"}, "each": {"backend": "TestDouble"}}
    item = {"data": ["boom", *range(100_000)]}
    with pipe(document) as running:
        running(item)
        assert running.nodes["each"].counts.items < 5000
    assert "element 0: node 'each': boom" in str(item["error"])


def test_elements_that_are_refused_at_once_end_without_a_deep_stack() -> None:
    """Where no instance works, each element is done while it is being launched."""
    document = {
        "all": {"backend": "MapReduce", "jump": "inner"},
        "inner": {"backend": "MapReduce", "jump": "each"},
        "each": DOUBLE,
    }
    item = {"data": [[] for _ in range(50_000)]}
    run(document, item)
    assert item["result"] == [[]] * 50_000


def test_closing_finishes_what_is_on_its_way(gate: Any) -> None:
    # In this order `after` would be stopped first if only `next` were followed.
    document = {
        "each": {"backend": "TestGated"},
        "all": {"backend": "S[TestKeep,MapReduce]", "jump": "each", "next": "after"},
        "after": {"backend": "TestText"},
    }
    for backend in ("MapReduce", "S[TestKeep,MapReduce]"):
        document["all"]["backend"] = backend
        running = pipe(document)
        item = {"data": [1, 2]}
        caller = threading.Thread(target=running, args=(item,))
        caller.start()
        assert gate.entered.acquire(timeout=30)
        closing = threading.Thread(target=running.close)
        closing.start()
        gate.open.set()
        closing.join(30)
        caller.join(30)
        assert not caller.is_alive()
        assert item["result"] == "text [2, 4]"
        gate.open.clear()


@pytest.mark.parametrize("backend", ["Jump", "Jump[each]", "JumpV0[each]", "Jump(jump=each)"])
def test_a_jump_sends_the_item_itself(backend: str) -> None:
    document = {
        "start": {**DOUBLE, "next": "there"},
        "there": {"backend": backend, "next": "after"},
        "each": {**DOUBLE, "next": "more"},
        "more": {"backend": "TestShow"},
        "after": {"backend": "TestKeep"},
    }
    if backend == "Jump":
        document["there"]["jump"] = "each"
    item, bad = {"data": 1, "mine": 7}, {"data": "boo"}
    bad["data"] = None
    run(document, item, bad)
    assert (item["last"], item["label"]) == ({"data": 4, "mine": 7}, "label 4")
    assert str(bad["error"]).startswith("node 'start'")


class TestInASequence:
    """The instance waits for what it has sent."""

    DOCUMENT: ClassVar[dict[str, Any]] = {
        "a": {"backend": "S[TestKeep,MapReduce,TestText]", "jump": "each", "instance_num": 2},
        "each": {**DOUBLE, "next": "again"},
        "again": DOUBLE,
    }

    def test_results_come_in_order_and_a_bad_element_fails_its_item_alone(self) -> None:
        items: list[dict[str, Any]] = [{"data": [n, n + 1]} for n in range(50)]
        bad: list[dict[str, Any]] = [{"data": [1, "boom"]}, {"data": 3}]
        run(self.DOCUMENT, *items, *bad)
        assert [item["result"] for item in items] == [
            f"text {[4 * n, 4 * n + 4]}" for n in range(50)
        ]
        assert str(bad[0]["error"]) == "node 'a': element 1: node 'each': boom is no number"
        assert "expected a list of elements, got int" in str(bad[1]["error"])

    def test_several_jumps(self) -> None:
        document = {**self.DOCUMENT, "a": {"backend": "S[Jump[each],(or)TestText,Jump[again]]"}}
        item, bad = {"data": 1}, {"data": "boom"}
        run(document, item, bad)
        assert item["result"] == 8
        # What the jump has failed the filter takes up: "text boom" doubled.
        assert bad["result"] == "text boomtext boom"

    def test_items_of_several_callers_go_side_by_side(self, gate: Any) -> None:
        document = {"a": {"backend": "S[MapReduce]", "jump": "b"}, "b": {"backend": "TestGated"}}
        document["b"]["test_max"] = 8
        items = [{"data": [1, 2]}, {"data": [3]}]
        with pipe(document) as running:
            callers = [threading.Thread(target=running, args=(item,)) for item in items]
            for caller in callers:
                caller.start()
            assert gate.entered.acquire(timeout=30)
            gate.open.set()
            for caller in callers:
                caller.join(30)
        assert [item["result"] for item in items] == [[2, 4], [6]]


@register_filter("TestEvenOnly")
def even_only(item: Item) -> Status:
    """Ends items whose result is odd; the others go on with it."""
    if item["result"] // 2 % 2:
        return Status.BREAK
    item["data"] = item.pop("result")
    return Status.RUN


@register_filter("TestNoLists")
def no_lists(item: Item) -> Status:
    """Skips what is to be split and has no list."""
    item["data"] = item.pop("result")
    if isinstance(item["data"], list):
        return Status.RUN
    item["result"] = item["data"]
    return Status.SKIP


class TestWithFilters:
    """On the way of the elements, and around what sends them."""

    @pytest.mark.parametrize(
        ("changes", "result"),
        [
            # data 1, 2, 3: `each` doubles, `again` doubles once more.
            ({"again": {"filter": "TestEvenOnly"}}, [2, 8, 6]),
            ({"again": {"filter": "Break"}}, [2, 4, 6]),
            ({"again": {"filter": "Skip"}}, [2, 4, 6]),
            ({"again": {"filter": "SerialSkip", "next": "third"}}, [2, 4, 6]),
            ({"again": {"filter": "SubGraphSkip", "next": "third"}}, [2, 4, 6]),
            ({"again": {"filter": "Skip", "next": "third"}}, [4, 8, 12]),
        ],
    )
    def test_a_filter_ends_or_shortens_the_way_of_one_element(
        self, changes: dict[str, Any], result: list[int]
    ) -> None:
        document = {**EACH, "third": DOUBLE}
        document["again"] = {**DOUBLE, **changes["again"]}
        item = {"data": [1, 2, 3], "node_name": "all"}
        run(document, item)
        assert item["result"] == f"text {result}"

    def test_an_error_of_a_filter_is_that_of_its_element(self) -> None:
        item = {"data": [1, 2]}
        run({**EACH, "again": {**DOUBLE, "filter": "Error"}}, item)
        assert str(item["error"]) == (
            "node 'all': element 0: node 'again': filter 'Error' gave Error"
        )

    def test_elements_that_failed_are_taken_up_on_their_way_or_behind_it(self) -> None:
        data = [1, "boom"]
        on_the_way, behind = {"data": data}, {"data": data}
        document = {**EACH, "again": {"backend": "TestText", "filter": "or"}}
        document["after"] = {"backend": "TestKeep"}
        run(document, on_the_way)
        assert on_the_way["result"] == [2, "text boom"]
        run({**EACH, "after": {"backend": "TestText", "filter": "or"}}, behind)
        assert behind["result"] == "text [1, 'boom']", "the data that MapReduce had"

    def test_before_what_divides(self) -> None:
        document = {**EACH, "first": {"backend": "TestKeep", "next": "all"}}
        document["all"] = {**EACH["all"], "filter": "TestNoLists"}
        items = [{"data": [1]}, {"data": 7}]
        run(document, *items)
        assert [item["result"] for item in items] == ["text [4]", "text 7"]

    @pytest.mark.parametrize("backend", ["MapReduce", "S[MapReduce]"])
    def test_a_break_beside_them_waits_for_what_is_on_its_way(
        self, gate: Any, backend: str
    ) -> None:
        document = {
            "start": {"backend": "TestKeep", "next": "all,aside"},
            "all": {"backend": backend, "jump": "each", "next": "join"},
            "aside": {"backend": "TestText", "next": "end"},
            "end": {"backend": "TestText", "filter": "Break", "next": "join"},
            "join": {"backend": "TestKeep", "map": "all[result:data],end[result:other]"},
            "each": {"backend": "TestGated", "test_max": 2},
        }
        item = {"data": [1, 2]}
        with pipe(document) as running:
            caller = threading.Thread(target=running, args=(item,))
            caller.start()
            assert gate.entered.acquire(timeout=30)
            gate.open.set()
            caller.join(30)
        assert item["result"] == "text [1, 2]"
        assert sum(map(len, gate.batches)) == 2

    def test_a_branch_that_divides_is_joined(self) -> None:
        document = {
            "start": {"backend": "TestKeep", "next": "all,whole"},
            "all": {"backend": "MapReduce", "jump": "each", "next": "join"},
            "whole": {"backend": "TestText", "next": "join"},
            "join": {"backend": "TestShow", "map": "all[result:data],whole[result:whole]"},
            "each": DOUBLE,
        }
        items = [{"data": [n, n]} for n in range(20)]
        run(document, *items)
        assert [item["result"] for item in items] == [
            {"data": [2 * n, 2 * n], "whole": f"text {[n, n]}"} for n in range(20)
        ]


def test_elements_keep_the_times_of_their_own_nodes() -> None:
    document = {
        "a": {"backend": "S[TestKeep,MapReduce]", "jump": "b", "profile_stages": True},
        "b": {"backend": "S[TestShow]", "profile_stages": True},
    }
    item = {"data": [1, 2]}
    run(document, item)
    assert item["result"] == [{"data": 1, "last": [1, 2]}, {"data": 2, "last": [1, 2]}]
    assert {stage for stage in item["stage_times_ms"] if stage.startswith("a.")} >= {
        "a.Keep",
        "a.MapReduce",
    }


@pytest.mark.parametrize(
    ("node", "words"),
    [
        ({"backend": "MapReduce"}, "[x]: jump is missing: MapReduce needs the name of a node"),
        ({"backend": "S[Jump]", "jump": "yy"}, "[x] jump = 'yy' is no node; did you mean 'y'?"),
        ({"backend": "S[TestText,Jump[x]]"}, "[x] jump = 'x': that way leads back to 'x'"),
        ({"backend": "Jump[y,y]"}, "Jump takes one node in its brackets: Jump[y,y]"),
        ({"backend": "Jump(jump=x)[y]"}, "Jump has two ways to go: jump = 'x', and [y]"),
        ({"backend": "MapReduce[y]", "merge": ""}, "[x]: merge = ''"),
        ({"backend": "MapReduce[y]", "split": "a,,b"}, "[x]: split = 'a,,b'"),
        ({"backend": "MapReduce[fork]"}, "has several ends (y, z), and none gives the result"),
    ],
)
def test_mistakes_are_found_at_load(node: dict[str, Any], words: str) -> None:
    document = {"x": node, "y": DOUBLE, "z": DOUBLE, "fork": {**DOUBLE, "next": "y,z"}}
    found = mistakes(document)
    assert len(found) == 1
    assert words in found[0]
    with pytest.raises(PipelineConfigError):
        pipe(document)


def test_ends_of_elements_are_merged_by_node() -> None:
    document = {
        "x": {"backend": "MapReduce[fork]", "merge": "results"},
        "fork": {**DOUBLE, "next": "y,z"},
        "y": DOUBLE,
        "z": {"backend": "TestText"},
    }
    item = {"data": [1, 2]}
    run(document, item)
    assert item["results"] == [{"y": 4, "z": "text 2"}, {"y": 8, "z": "text 4"}]


@register("TestDetect")
class Detect(Backend):
    """Finds bright squares on a dark image."""

    def init(self, config: InstanceConfig) -> None:
        pass

    def forward(self, items: Sequence[Item]) -> None:
        for item in items:
            grey = item["data"].max(axis=2)
            _, _, found, _ = cv2.connectedComponentsWithStats((grey > 100).astype(np.uint8))
            boxes = [(x, y, x + w, y + h) for x, y, w, h, area in found[1:].tolist() if area > 50]
            item["boxes"] = sorted(boxes)
            item["image"] = item["result"] = item["data"]


@register("TestContext")
class Context(Backend):
    """Puts beside each result how large the image was from which it was cut out."""

    def init(self, config: InstanceConfig) -> None:
        pass

    def forward(self, items: Sequence[Item]) -> None:
        for item in items:
            item["from"] = item["image"].shape
            item["result"] = item["data"]


def colour_classifier(path: Path) -> Path:
    """An ONNX model whose scores are the means of the channels of an image of 8x8."""
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["input"], ["pooled"]),
            helper.make_node("Reshape", ["pooled", "shape"], ["output"]),
        ],
        "colours",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(np.array([-1, 3], dtype=np.int64), "shape")],
    )
    opset = helper.make_opsetid("", 17)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=10), path)
    return path


def photo(size: tuple[int, int], squares: Iterable[tuple[int, int, int]]) -> bytes:
    """A JPEG with squares of 16 pixels: each with x, y and its brightest channel (0 is red)."""
    image = np.zeros((*size, 3), np.uint8)
    for x, y, channel in squares:
        image[y : y + 16, x : x + 16, 2 - channel] = 250
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()


@pytest.mark.parametrize("in_one_node", [False, True], ids=["nodes", "sequence"])
def test_detect_crop_classify_and_merge(tmp_path: Path, in_one_node: bool) -> None:
    crop = "S[CropMat,ResizeMat,cvtColorMat,Mat2Tensor]"
    document: dict[str, Any] = {
        "detect": {"backend": "S[DecodeMat,TestDetect]", "next": "each", "instance_num": 2},
        "each": {"backend": "MapReduce", "jump": "crop", "split": "_box", "next": "report"},
        "report": {"backend": "TestKeep", "map": "each[result:data,from:from,image:image]"},
        "crop": {"backend": crop, "resize_h": 8, "resize_w": 8, "color": "rgb", "next": "classify"},
        "classify": {
            "backend": "TensorrtTensor",
            "model": str(colour_classifier(tmp_path / "colours.onnx")),
            "max": 4,
            "precision": "fp32",
            "postprocessor": "SoftmaxMax",
            "next": "context",
        },
        "context": {"backend": "TestContext"},
    }
    document["each"] |= {"map": "detect[result:data,boxes:_box,image:image,color:color]"}
    document["each"] |= {"merge": "result,from"}
    if in_one_node:
        document["crop"] = {**document["crop"], "backend": f"{crop[:-1]},Jump[classify]]"}
        del document["crop"]["next"]
    colours = [[(8, 8, 0), (40, 30, 1), (70, 5, 2)], [], [(3, 20, 2)]]
    items = [{"data": photo((60 + 10 * n, 100), squares)} for n, squares in enumerate(colours)]
    items.append({"data": b"no image"})
    run(document, *items)
    for item, squares in zip(items, colours, strict=False):
        assert [number for number, _ in item["result"]] == [channel for *_, channel in squares]
        assert item["from"] == [item["image"].shape] * len(squares)
    assert "node 'detect'" in str(items[3]["error"])
