"""The forms of a document: flat, [global], [rec.2], Interpreter::backend, names of keys."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.config import parse_config, read_config
from pipeline.errors import PipelineConfigError
from pipeline.language.expression import Expression
from pipeline.language.node_tables import normal_form


@pytest.mark.parametrize(
    ("document", "normal"),
    [
        ({}, {}),
        ({"instance_num": 2}, {"instance_num": 2}),
        ({"backend": "A", "max": 2}, {"backend": "A", "max": 2, "node": {}}),
        ({"global": {"backend": "A", "max": 2}}, {"backend": "A", "max": 2, "node": {}}),
        (
            {"max": 2, "global": {"min": 1}, "a": {"next": "b"}, "b": {}},
            {"max": 2, "min": 1, "a": {"next": "b"}, "b": {}},
        ),
        (
            {"rec": {"max": 2, "2": {"next": "b", "model": "x"}, "3": {}}, "b": {}},
            {"rec": {"max": 2}, "rec.2": {"next": "b", "model": "x"}, "rec.3": {}, "b": {}},
        ),
        ({"a": {"table": {"of": "values"}}}, {"a": {"table": {"of": "values"}}}),
        ({"Interpreter::backend": "PipelineV3", "a": {}}, {"a": {}}),
        ({"a": {"Interpreter::backend": "X[Y]"}}, {"a": {"backend": "X[Y]"}}),
        ({"Interpreter::backend": "X"}, {"backend": "X", "node": {}}),
        (
            {"Interpreter::backend": "Ring", "a": {}},
            {"Interpreter::backend": "Ring", "a": {}},
        ),
        (
            {"a": {"split": "TASK_BOX_KEY", "map": "b[TASK_RESULT_KEY:TASK_DATA_KEY]"}},
            {"a": {"split": "_box", "map": "b[result:data]"}},
        ),
    ],
)
def test_normal_form(document: dict[str, Any], normal: dict[str, Any]) -> None:
    assert normal_form(document) == normal
    assert list(normal_form(document)) == list(normal)
    assert normal_form(normal) == normal


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"max": 2, "global": {"max": 1}, "a": {}}, "max stands above the first table and in"),
        (
            {"a": {"map": "b[TASK_DATE_KEY:data]"}},
            "[a] map: TASK_DATE_KEY is the name of no key; did you mean 'TASK_DATA_KEY'?",
        ),
        ({1: {"backend": "Identity"}}, "1 is no key: nodes and settings have texts"),
        ({"a": {2: {"next": "b"}}}, "2 is no key: nodes and settings have texts"),
        ({"global": {"a": {"max": 2}}, "a": {}}, "[global.a] is no global: a node is a table [a]"),
        ({"a": {}, "global": {3: "x"}}, "3 is no key: nodes and settings have texts"),
        ({"instance_num": 2}, "has no node: add a table such as [decoder], or a backend"),
        ({"rec": {}, "rce.2": {}}, "instances of 'rce', which is no node; did you mean 'rec'?"),
        ({"xyz": {}, "rec.2": {}}, "[rec.2] runs the instances of 'rec', which is no node."),
        ({"a": {"backend": "Identity", "2": {"model": "x"}}}, "unknown key '2'"),
        ({"a": {"map": "[result:data]"}}, "[a] has a map, but no node names it as its next"),
    ],
)
def test_what_is_refused(document: dict[Any, Any], words: str) -> None:
    _, mistakes = read_config(document)
    assert len(mistakes) == 1
    assert words in mistakes[0]


def test_a_node_without_a_backend_is_an_identity() -> None:
    config = parse_config({"a": {"next": "b"}, "b": {"backend": "DecodeMat"}})
    assert config.nodes["a"].backend == Expression("Identity")
    assert config.nodes["a"].origins["backend"] == "default"
    config = parse_config({"backend": "DecodeMat", "a": {"next": "b"}, "b": {}})
    assert {node.backend.name for node in config.nodes.values()} == {"DecodeMat"}


def test_what_a_logical_node_says_without_effect_is_a_warning() -> None:
    document = {"a": {"next": "a.2"}, "a.2": {"backend": "DecodeMat", "filter": "or"}}
    config = parse_config(document)
    assert config.warnings == ("[a.2] runs the instances of [a]; without effect here: backend",)
    assert config.nodes["a.2"].backend == Expression("Identity")
    assert config.nodes["a.2"].place.filter == "or"


def test_keys_of_one_backend() -> None:
    document = {
        "ResizeMat::resize_w": 7,
        "a": {
            "backend": "S[Torch,S,ResizeMat(resize_h=1)]",
            "S::backend": "DecodeMat,(or)ResizeMat",
            "ResizeMat::resize_h": 2,
            "resize_h": 3,
            "resize_w": 4,
        },
    }
    (node,) = parse_config(document).nodes.values()
    # S inside of S would be the same key for both; the outer one has its brackets already.
    assert str(node.backend) == (
        "S[Torch,S[DecodeMat,(or)ResizeMat(resize_w=7,resize_h=2)],"
        "ResizeMat(resize_w=7,resize_h=1)]"
    )
    with pytest.raises(PipelineConfigError, match="unknown key 'ResizeMat::resize_w'"):
        parse_config({"ResizeMat::resize_w": 7, "a": {"backend": "DecodeMat"}})
    with pytest.raises(PipelineConfigError, match="unknown key 'resize_x'"):
        parse_config({"a": {"backend": "ResizeMat", "ResizeMat::resize_x": 7}})
