"""The views of `python -m pipeline show`: text, Mermaid, and pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import pytest

from engine.registry import choose_engine
from pipeline.commands.console import one_line, table
from pipeline.commands.dispatch import main
from pipeline.commands.drawing import Edge, drawing_of
from pipeline.commands.graph_view import (
    as_mermaid,
    as_text,
    wrapped_expression,
)
from pipeline.config import parse_config

N: dict[str, Any] = {"backend": "DecodeMat"}
CHAIN = {
    "decode": {"backend": "S[DecodeMat,Mat2Tensor]", "instance_num": 2, "next": "model"},
    "model": {"backend": "TensorrtTensor", "model": "m.onnx", "max": 4},
}
DIAMOND = {
    "decode": {**N, "next": "left,right"},
    "left": {**N, "next": "join"},
    "right": {**N, "next": "join", "filter": "or"},
    "join": {**N, "map": "left[result:data],right[result:mask]"},
}
TWO_ROOTS = {
    "jpeg": {**N, "next": "model"},
    "tensor": {**N, "next": "model"},
    "model": {**N, "map": "jpeg[result:data],tensor[result:x,data:y]"},
}
MAP_REDUCE = {
    "each": {"backend": "MapReduce", "jump": "crop", "next": "collect"},
    "crop": N,
    "collect": N,
}
SHOWN = {
    "chain": (
        CHAIN,
        """\
╙── decode
    ╽
    model

decode  S[DecodeMat,Mat2Tensor]
        2 instances

model   TensorrtTensor
        1 instance, m.onnx by {engine}, min 1, max 4""",
    ),
    "diamond": (
        DIAMOND,
        """\
╙── decode
    ├─╼ left
    │   ╽
    │   join ╾ right
    └─╼ right
        └─╼  ...

decode  DecodeMat
        1 instance

left    DecodeMat
        1 instance

right   DecodeMat
        1 instance, filter or

join    DecodeMat
        1 instance, map left[result:data], right[result:mask]""",
    ),
    "two_roots": (
        TWO_ROOTS,
        """\
╟── jpeg
╎   ╽
╎   model ╾ tensor
╙── tensor
    └─╼  ...

jpeg    DecodeMat
        1 instance

tensor  DecodeMat
        1 instance

model   DecodeMat
        1 instance, map jpeg[result:data], tensor[result:x, data:y]""",
    ),
    "map_reduce": (
        MAP_REDUCE,
        """\
╙── each
    ├─╼ collect
    └─╼ crop

each     MapReduce
         jump crop, split data, merge result

crop     DecodeMat
         1 instance

collect  DecodeMat
         1 instance""",
    ),
}


@pytest.mark.parametrize("name", SHOWN)
def test_the_terminal_shows_a_tree_and_what_each_node_runs(name: str) -> None:
    document, text = SHOWN[name]
    choice = choose_engine("auto")
    told = text.replace("{engine}", f"{choice.name} {choice.precision}")
    assert as_text(drawing_of(parse_config(document)), 100) == told


def test_a_narrow_terminal_breaks_lines() -> None:
    document = {"a": {"backend": "S[DecodeMat,cvtColorMat,Mat2Tensor]", "instance_num": 12}}
    assert max(map(len, as_text(drawing_of(parse_config(document)), 30).splitlines())) <= 30
    assert wrapped_expression("S[DecodeMat,cvtColorMat,Mat2Tensor]", 24) == [
        "S[DecodeMat,cvtColorMat,",
        "  Mat2Tensor]",
    ]


def test_a_map_that_takes_from_further_up_has_a_line_of_its_own() -> None:
    document = {
        "a": {**N, "next": "b"},
        "b": {**N, "next": "c"},
        "c": {**N, "map": "b[result:data],a[data:image]"},
    }
    drawing = drawing_of(parse_config(document))
    assert list(drawing.edges) == [
        Edge("a", "b"),
        Edge("b", "c", label="result:data"),
        Edge("a", "c", "map", "data:image"),
    ]
    assert as_mermaid(drawing).splitlines()[-3:] == [
        "    n0 --> n1",
        '    n1 -->|"result:data"| n2',
        '    n0 -.->|"data:image"| n2',
    ]
    assert "map b[result:data], a[data:image]" in as_text(drawing, 100)


def test_mermaid_is_printed_with_every_character_escaped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "graph.toml"
    file.write_text("""['a "b" <c>']\nbackend = "DecodeMat"\n""")
    assert main(["show", str(file), "--format", "mermaid"]) == 0
    assert capsys.readouterr().out == (
        'flowchart TD\n    n0["<b>a #34;b#34; #60;c#62;</b><br/>DecodeMat<br/>1 instance"]\n'
    )


@pytest.mark.parametrize("document", [CHAIN, DIAMOND, TWO_ROOTS, MAP_REDUCE, {"$x^$": N}])
def test_files_hold_every_node(document: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "graph.toml"
    lines = [
        f"['{name}']\n" + "".join(f"{key} = {value!r}\n" for key, value in node.items())
        for name, node in document.items()
    ]
    file.write_text("\n".join(lines))
    png, svg = tmp_path / "graph.png", tmp_path / "graph.svg"
    assert main(["show", str(file), "--output", str(png)]) == 0
    assert main(["show", str(file), "--output", str(svg)]) == 0
    picture = cv2.imread(str(png))
    assert picture is not None
    assert picture.min() < 100
    root = ElementTree.parse(svg).getroot()  # noqa: S314 (our own file)
    text = ElementTree.tostring(root, encoding="unicode")
    # The paths of a text's letters stand behind a comment; boxes and arrows are patches.
    assert text.count('id="patch_') >= len(document) + 1
    first = svg.read_bytes()
    assert main(["show", str(file), "--output", str(svg)]) == 0
    assert svg.read_bytes() == first


@pytest.mark.parametrize(
    ("output", "code", "words"),
    [("graph.pdf", 2, ".svg or .png"), ("/no/such/folder/graph.svg", 1, "No such file")],
)
def test_an_output_that_cannot_be_is_one_line(
    output: str, code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["show", "pipeline/configs/resnet50_cpu.toml", "--output", output]) == code
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def test_a_caret_becomes_a_column() -> None:
    assert one_line("expected ']':\n    S[A\n       ^") == "expected ']': S[A (column 4)"
    assert one_line("plain") == "plain"


def test_a_table_wraps_its_widest_column() -> None:
    assert table(("key", "value"), [("a", "one two three four")], 20) == (
        "key  value\na    one two three\n     four"
    )


WRONG = """
batching_timeot = 5
rec = "no table"
[decode]
backend = "S[DecodeMat,(swop)NoSuchMat(a=1)]"
next = "model,nowhere"
[model]
backend = "S[ResizeMat,,]"
next = "cut"
[cut]
backend = "ResizeMat"
resize_h = "high"
resize_w = 8
filter = "orr"
[each]
backend = "MapReduce"
["decode.2"]
["rec.2"]
"""


def test_a_file_with_mistakes_is_drawn_with_marks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "wrong.toml"
    file.write_text(WRONG)
    assert main(["show", str(file)]) == 1
    shown, errors = capsys.readouterr()
    tree, *details = shown.split("\n\n")
    for name in ("decode", "model", "nowhere", "cut", "each"):
        assert name in tree
    told = {text.split()[0]: " ".join(text.split()[1:]) for text in details}
    assert told["decode"] == "S[DecodeMat,(swop)NoSuchMat(a=1)] unknown here: NoSuchMat, (swop)"
    assert told["model"] == "S[ResizeMat,,] has a mistake"
    assert told["nowhere"] == "there is no such node"
    assert told["cut"].startswith("ResizeMat has a mistake, 1 instance")
    assert told["decode.2"].startswith(
        "S[DecodeMat,(swop)NoSuchMat(a=1)] unknown here: NoSuchMat, (swop)"
    )
    assert told["each"].startswith("MapReduce has a mistake")
    assert all(line.startswith("mistake: ") for line in errors.splitlines())
    assert len(errors.splitlines()) == 10
    assert main(["show", str(file), "--format", "mermaid"]) == 1
    assert "<b>nowhere</b><br/>there is no such node" in capsys.readouterr().out
    assert main(["show", str(file), "--output", str(tmp_path / "wrong.svg")]) == 1
    assert "mistake: " in capsys.readouterr().err
    assert "wrong.toml" in (tmp_path / "wrong.svg").read_text()


def test_a_cycle_is_drawn_in_text_and_not_in_a_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "cycle.toml"
    file.write_text(
        '[a]\nbackend = "DecodeMat"\nnext = "b"\n[b]\nbackend = "DecodeMat"\nnext = "a"'
    )
    assert main(["show", str(file)]) == 1
    shown, errors = capsys.readouterr()
    assert "a  DecodeMat" in shown
    assert errors == "mistake: nodes form a cycle: a -> b -> a\n"
    assert main(["show", str(file), "--output", str(tmp_path / "cycle.svg")]) == 1
    assert "--format mermaid can" in capsys.readouterr().err
    assert not (tmp_path / "cycle.svg").exists()


def test_what_has_no_node_cannot_be_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "empty.toml"
    for text, message in (("", "no node"), ("[a", "TOML")):
        file.write_text(text)
        assert main(["show", str(file)]) == 2
        shown, error = capsys.readouterr()
        assert (shown, message in error) == ("", True)
