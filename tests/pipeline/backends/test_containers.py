"""Backends around backends, settings in expressions, and what nodes count."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import pytest

from pipeline import PipelineConfigError, pipe
from pipeline.backends.assembly import build_backend
from pipeline.backends.interface import Backend, InstanceConfig, Item
from pipeline.backends.registry import register
from pipeline.language.expression import parse_expression
from pipeline.runtime.counts import LeaveReason


def run(document: dict[str, Any], *data: Any) -> list[dict[str, Any]]:
    items = [{"data": value} for value in data]
    with pipe(document) as running:
        running(items)
    return items


@pytest.mark.parametrize("name", ["Torch", "SyncTensor", "StreamGuard"])
def test_torch_and_its_other_names_run_what_is_in_their_brackets(name: str) -> None:
    (item,) = run({"only": {"backend": f"{name}[S[TestDouble,TestDouble]]"}}, 3)
    assert item["result"] == 12
    with pytest.raises(PipelineConfigError, match="takes one backend in its brackets, got 2"):
        pipe({"only": {"backend": f"{name}[TestDouble,TestDouble]"}})


STREAM_WORDS = ["Torch", "SyncTensor", "StreamGuard"]


@pytest.mark.parametrize("word", STREAM_WORDS)
@pytest.mark.parametrize(
    ("expression", "result"),
    [
        ("{}", 3),
        ("S[{}]", 3),
        ("S[TestDouble,{}]", 6),
        ("S[{},TestDouble]", 6),
        ("S[TestDouble,{},TestDouble]", 12),
        ("Torch[S[TestDouble,S[TestDouble,{}]]]", 12),
        ("Torch[{}]", 3),
        ("SequentialV0[TestDouble,{}]", 6),
        ("S_v0[TestDouble,{0},{0}]", 6),
        ("S[TestDouble,{},(or)TestDouble]", 6),
        ("S[TestDouble,(Skip){},TestDouble]", 12),
    ],
)
def test_a_stream_word_without_brackets_hands_on_its_data(
    word: str, expression: str, result: int
) -> None:
    (item,) = run({"only": {"backend": expression.format(word)}}, 3)
    assert item["result"] == result


def test_a_stream_word_ends_an_item_without_a_result_as_any_member_does() -> None:
    """So no "or" behind it has a second attempt."""
    backend = "S[DecodeMat,SyncTensor,(or)TestDouble]"
    (item,) = run({"only": {"backend": backend}}, b"no image")
    assert "do not decode as an image" in str(item["error"])


def test_a_left_out_stream_word_leaves_the_result_as_the_data() -> None:
    document = {
        "first": {"backend": "S[TestDouble,TestDouble,SyncTensor]", "next": "last"},
        "last": {"backend": "Identity", "map": "first[data:data]"},
    }
    (item,) = run(document, 3)
    assert item["result"] == 12


@pytest.mark.parametrize("word", STREAM_WORDS)
def test_a_sequence_of_operators_runs_in_its_caller_with_a_stream_word_too(word: str) -> None:
    for expression in (f"S[DecodeMat,{word}]", f"{word}[S[DecodeMat]]", word):
        assert build_backend(parse_expression(expression)).any_thread, expression


def test_range_gives_a_backend_other_batch_sizes() -> None:
    document = {"only": {"backend": "Range[TestDouble]", "range": "1,6", "test_max": 4}}
    with pipe(document) as running:
        items = [{"data": number} for number in range(50)]
        running(items)
        sizes = running.nodes["only"].counts.batches.by_size
    assert [item["result"] for item in items] == [2 * number for number in range(50)]
    # TestDouble itself asserts that it never gets more than four.
    assert max(sizes) <= 6
    assert sizes[6] >= 1


@register("TestRows")
class Rows(Backend):
    """Takes four rows and records how many it gets."""

    max = 4
    seen: ClassVar[list[int]] = []

    def init(self, config: InstanceConfig) -> None:
        pass

    def forward(self, items: Sequence[Item]) -> None:
        self.seen.append(sum(item["request_size"] for item in items))
        for item in items:
            item["result"] = item["data"]


def test_portions_of_a_range_count_rows_and_not_items() -> None:
    Rows.seen.clear()
    node = {"backend": "Range[TestRows]", "range": "9,9", "batching_timeout": 60_000}
    document = {"only": node}
    with pipe(document) as running:
        running([{"data": number, "request_size": 3} for number in range(3)])
        assert running.nodes["only"].counts.batches.by_size == {9: 1}
    assert Rows.seen == [3, 3, 3]


@pytest.mark.parametrize(
    ("node", "words"),
    [
        ({"backend": "Range[TestDouble]"}, "Range needs range, fewest and most items"),
        ({"backend": "Range[TestDouble]", "range": "4,1"}, "range = '4,1': expected fewest and"),
        ({"backend": "Range[TestDouble,TestDouble]"}, "Range takes one backend"),
    ],
)
def test_a_range_that_makes_no_sense(node: dict[str, Any], words: str) -> None:
    with pytest.raises(PipelineConfigError, match=words):
        pipe({"only": node})


def test_settings_in_parentheses_are_for_that_backend_and_what_is_in_its_brackets() -> None:
    document = {"only": {"backend": "S(test_max=3)[TestDouble,TestDouble(test_max=2)]"}}
    with pipe({"only": {**document["only"], "test_max": 7}}) as running:
        items = [{"data": number} for number in range(9)]
        running(items)
        sizes = running.nodes["only"].counts.batches.by_size
    assert [item["result"] for item in items] == [4 * number for number in range(9)]
    # What both take: the first three at once, the second two.
    assert max(sizes) == 2


@pytest.mark.parametrize(
    ("backend", "words"),
    [
        ("TestDouble(test_maxx=2)", r"TestDouble\(...\): unknown key 'test_maxx'; did you mean"),
        ("TestDouble(resize_h=2)", "unknown key 'resize_h'"),
        ("TestDouble(test_max=none)", "test_max = 'none': expected a count"),
    ],
)
def test_settings_in_parentheses_are_checked_as_others_are(backend: str, words: str) -> None:
    with pytest.raises(PipelineConfigError, match=words):
        pipe({"only": {"backend": backend}})


def test_nodes_count_what_they_do() -> None:
    document = {
        "first": {"backend": "TestDouble", "test_max": 4, "instance_num": 2, "next": "second"},
        "second": {"backend": "TestDouble"},
    }
    with pipe(document) as running:
        running([{"data": value} for value in (1, 2, "boom", 4, 5)])
        first, second = (running.nodes[name].counts for name in document)
    assert (first.items, first.failed_items) == (5, 1)
    assert (second.items, second.failed_items) == (4, 0)
    assert first.batches.by_size.total() == first.batches.by_reason.total()
    assert sum(size * count for size, count in first.batches.by_size.items()) == 5
    assert second.batches.by_reason == {LeaveReason.FULL: 4}
    assert first.queue_ms > 0
    assert first.forward_ms > 0
