"""`pipe`: what may be given to it, what it gives back, and what it raises."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import pytest

import thriftpipe.torchpipe as torchpipe
from pipeline import NodeError, PipelineConfigError, PipelineInputError

CHAIN = {"first": {"backend": "Identity", "next": "second"}, "second": {"backend": "Identity"}}


class _Raises:
    def forward(self, items: list[dict[str, Any]]) -> None:
        for item in items:
            if item["data"] == "bad":
                raise LookupError("bad is bad")
            item["result"] = item["data"]

    def max(self) -> int:
        return 4


class _NoResult:
    def forward(self, items: list[dict[str, Any]]) -> None:
        pass


torchpipe.register_backend(_Raises, "ApiRaises")
torchpipe.register_backend(_NoResult, "ApiNoResult")


def test_an_item_or_a_list_of_items_is_filled_in_place() -> None:
    with torchpipe.pipe(CHAIN) as run:
        one = {"data": 1, "result": "old"}
        several = [{"data": 2}, torchpipe.Dict({"data": 3})]
        assert run(one) is None
        assert run(several) is None
    assert one["result"] == 1
    assert [item["result"] for item in several] == [2, 3]


def test_keywords_are_an_item_whose_result_is_returned_or_go_into_every_item() -> None:
    with torchpipe.pipe(CHAIN) as run:
        assert run(data=7) == 7
        assert run([1, 2], node_name="second") == [1, 2]
        items: list[dict[str, Any]] = [{"data": 1}, {"data": 2}]
        run(items, color="rgb")
        run(data={"data": 3})
    assert [item["color"] for item in items] == ["rgb", "rgb"]


def test_a_list_of_items_and_others_is_neither_items_nor_data() -> None:
    item: dict[str, Any] = {"data": 1}
    with torchpipe.pipe(CHAIN) as run, pytest.raises(TypeError, match="a list of dicts and others"):
        run([item, 2])
    assert item == {"data": 1}


@pytest.mark.parametrize(
    "read",
    [
        torchpipe.parse_toml,
        torchpipe.pipe,
        torchpipe.init_from_file,
        torchpipe.Interpreter().init_from_toml,
        torchpipe.Visual,
    ],
)
def test_a_file_that_cannot_be_read_is_what_either_line_raises(read: Any, tmp_path: Path) -> None:
    broken = tmp_path / "chain.toml"
    missing = tmp_path / "chian.toml"
    broken.write_text("[first\n")
    with pytest.raises(RuntimeError, match=r"chain\.toml is not valid TOML") as invalid:
        read(str(broken))
    assert isinstance(invalid.value, torchpipe.ConfigError)
    assert not isinstance(invalid.value, OSError)
    for expected in (RuntimeError, FileNotFoundError, PipelineConfigError):
        with pytest.raises(expected, match=r"chian\.toml"):
            read(str(missing))
    with pytest.raises(OSError, match=re.escape(str(tmp_path))):
        read(str(tmp_path))


def test_a_file_a_path_a_dict_of_text_and_an_expression_are_configurations(tmp_path: Path) -> None:
    file = tmp_path / "chain.toml"
    file.write_text('instance_num = 2\n[first]\nbackend = "Identity"\nnext = "second"\n[second]\n')
    file.write_text(file.read_text() + 'backend = "Identity"\n')
    as_text = {"only": {"backend": "Identity", "instance_num": "2", "batching_timeout": 5}}
    for config in (str(file), file, as_text, "Identity", "S[Identity,Identity]"):
        with torchpipe.pipe(config) as run:
            assert run(data=1) == 1
    interpreter = torchpipe.Interpreter()
    interpreter.init_from_toml(str(file))
    item = {"data": 2}
    interpreter(item)
    interpreter.close()
    assert item["result"] == 2


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({}, "configuration is empty"),
        (3, "got int: 3"),
        ("no/such/file.toml", "no folder no/such"),
        ("no/such/file", "no such file"),
        ("Nonsense", "unknown backend 'Nonsense'"),
        ({"a": {"backend": "Identity", "instance_num": "dd"}}, "instance_num"),
        ({"a": {"backend": "TensorrtTensor", "model": Path("no.onnx")}}, "no.onnx"),
    ],
)
def test_what_cannot_run_is_a_runtime_error_that_says_why(config: Any, words: str) -> None:
    with pytest.raises(RuntimeError, match=words) as raised:
        torchpipe.pipe(config)
    assert isinstance(raised.value, PipelineConfigError)


def test_a_call_that_no_configuration_accepts_is_an_index_error() -> None:
    several = {"a": {"backend": "Identity"}, "b": {"backend": "Identity"}}
    with torchpipe.pipe(several) as run:
        for item, words in (
            ({"node_name": "a"}, "needs 'data'"),
            ({"data": 1}, "needs 'node_name'"),
            ({"data": 1, "node_name": "c"}, "unknown node 'c'"),
        ):
            with pytest.raises(IndexError, match=words) as raised:
                run(item)
            assert isinstance(raised.value, PipelineInputError | RuntimeError)
    interpreter = torchpipe.Interpreter()
    with pytest.raises(TypeError, match="a dict, or a list of dicts, got str"):
        interpreter("text")  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="not loaded"):
        interpreter({"data": 1})


def test_what_a_python_backend_raises_is_raised_and_costs_no_neighbour() -> None:
    with torchpipe.pipe({"only": {"backend": "ApiRaises"}}) as run:
        items = [{"data": 1}, {"data": "bad", "result": "old"}, {"data": 3}]
        with pytest.raises(LookupError, match="bad is bad"):
            run(items)
    assert [item.get("result") for item in items] == [1, None, 3]
    assert isinstance(items[1]["error"], NodeError)


def test_an_instance_serves_on_after_any_number_of_bad_items() -> None:
    with torchpipe.pipe({"backend": "ApiRaises"}) as run:
        for _ in range(7):
            with pytest.raises(LookupError, match="bad is bad"):
                run({"data": "bad"})
        assert run("good") == "good"


def test_what_an_element_of_a_list_raises_is_raised_too() -> None:
    """Also what is raised for no item by itself: the element's result is missed at the merge."""
    each = {"backend": "MapReduce[inner]"}
    with torchpipe.pipe({"each": each, "inner": {"backend": "ApiRaises"}}) as run:
        items: list[dict[str, Any]] = [{"data": ["good", "bad"]}, {"data": ["good"]}]
        with pytest.raises(LookupError, match="bad is bad"):
            run(items)
        assert [item.get("result") for item in items] == [None, ["good"]]
    nested = {"outer": {"backend": "MapReduce[each]"}, "each": each}
    for backend, data in (("ApiNoResult", [[1]]), ("DecodeMat", [[b"no image"]])):
        document = {**nested, "inner": {"backend": backend}}
        with (
            torchpipe.pipe(document) as run,
            pytest.raises(torchpipe.BackendError, match="element 0: node 'each': element 0: node"),
        ):
            run({"data": data})


def test_what_another_backend_raises_is_a_runtime_error_that_names_the_node() -> None:
    with (
        torchpipe.pipe({"decoder": {"backend": "DecodeMat"}}) as run,
        pytest.raises(RuntimeError, match="node 'decoder': expected the bytes") as raised,
    ):
        run({"data": 1})
    assert isinstance(raised.value, torchpipe.BackendError)
    assert raised.value.node == "decoder"
    assert raised.value.__cause__ is raised.value.cause


@pytest.mark.parametrize("backend", ["DecodeMat", "S[DecodeMat,Identity]", "ApiNoResult"])
def test_an_image_that_cannot_be_decoded_has_no_result_and_raises_nothing(
    backend: str, caplog: pytest.LogCaptureFixture
) -> None:
    with torchpipe.pipe({"decoder": {"backend": backend}}) as run:
        item = {"data": b"no image", "result": "old"}
        with caplog.at_level(logging.WARNING):
            run(item)
        assert "result" not in item
        assert isinstance(item["error"], NodeError)
        assert "an item has no result: NodeError: node 'decoder'" in caplog.text
        # Where the result is to be returned, there is an exception that says why.
        with pytest.raises(RuntimeError, match="node 'decoder'"):
            run(data=b"no image")


def test_text_in_a_filled_item_is_text_and_bytes() -> None:
    with torchpipe.pipe(CHAIN) as run:
        item = {"data": "abc", "color": "rgb", "names": ["a", "b"]}
        run(item)
    assert item["result"] == "abc"
    assert item["result"] == b"abc"
    assert item["result"] != b"abd"
    assert item["color"].decode("utf-8") == "rgb"
    assert item["color"] in [b"rgb", b"bgr"]
    assert [name.decode() for name in item["names"]] == ["a", "b"]
    assert {item["color"]: 1} == {"rgb": 1}
    assert type(item["data"]) is str


def test_the_most_items_of_a_call_are_as_many_as_one_likes() -> None:
    with torchpipe.pipe(CHAIN) as run:
        assert (run.min(), run.max()) == (1, 2**32 - 1)


def test_a_backend_that_is_the_interpreters_own_says_how_many_it_takes() -> None:
    for config, bounds in (
        ({"Interpreter::backend": "ApiRaises"}, (1, 4)),
        ({"only": {"Interpreter::backend": "Range[Identities]", "range": "2,3"}}, (2, 3)),
        ({"Interpreter::backend": "PipelineV3", "backend": "ApiRaises"}, (1, 2**32 - 1)),
    ):
        with torchpipe.pipe(config) as run:
            assert (run.min(), run.max()) == bounds
    assert torchpipe.init("ApiRaises").max() == 4


def test_a_key_that_nobody_knows_is_ignored_and_an_empty_text_is_no_value(
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = {"only": {"backend": "Identity", "batching_timeoyt": 5, "next": "", "save_dir": ""}}
    with torchpipe.pipe(config) as run:
        assert run(data=1) == 1
    assert "[only]: batching_timeoyt is ignored: no backend reads it; did you" in caplog.text
    with pytest.raises(RuntimeError, match="torchpipe's key 'force_range' is not supported"):
        torchpipe.pipe({"only": {"backend": "Identity", "force_range": "1,1"}})
