"""Values with a part for each member of a sequence."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline import pipe
from pipeline.config import NodeConfig, parse_config, read_config


def node(**table: Any) -> NodeConfig:
    document = {"x": table, "y": {"backend": "TestText"}, "z": {"backend": "TestText"}}
    return parse_config(document).nodes["x"]


@pytest.mark.parametrize("jump", ["||y||z", "a|b|y|c|z", " | |y| |z", "TASK_DATA_KEY||y||z"])
def test_each_member_gets_its_part(jump: str) -> None:
    assert node(backend="S[TestText,TestText,Jump,TestText,Jump]", jump=jump).jumps == ("y", "z")
    assert node(backend="Torch[S[TestText,TestText,Jump,TestText,Jump]]", jump=jump).jumps == (
        "y",
        "z",
    )


def test_numbers_and_several_keys() -> None:
    settings = [
        dict(backend.settings)
        for backend in node(
            backend="S[ResizeMat,CropMat,ResizeMat]", resize_h="8||4", resize_w="9|0|6", x1=1
        ).backends()
        if backend.name == "ResizeMat"
    ]
    assert [(one["resize_h"], one["resize_w"]) for one in settings] == [(8, 9), (4, 6)]


def test_what_the_expression_says_comes_first() -> None:
    assert node(backend="S[Jump(jump=z),Jump]", jump="y|y").jumps == ("z", "y")


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"backend": "S[TestText,Jump]", "jump": "a|y|z"}, "jump = 'a|y|z' is no node"),
        ({"backend": "S[ResizeMat,ResizeMat]", "resize_h": "8|x"}, "resize_h = 'x': expected"),
        ({"backend": "S[TestText,TestText]", "instance_num": "1|2"}, "instance_num = '1|2'"),
        ({"backend": "S[TestText,", "jump": "a|y"}, "backend"),
    ],
)
def test_what_does_not_fit_is_refused(table: dict[str, Any], words: str) -> None:
    _, mistakes = read_config({"x": table, "y": {"backend": "TestText"}})
    assert len(mistakes) == 1
    assert words in mistakes[0]


def test_items_take_both_ways() -> None:
    document = {
        "x": {"backend": "S[TestKeep,Jump,Jump]", "jump": "|double|text"},
        "double": {"backend": "TestDouble"},
        "text": {"backend": "TestText"},
    }
    item = {"data": 2}
    with pipe(document) as running:
        running(item)
    assert item["result"] == "text 4"
