"""The pictures of `python -m pipeline show`, in the terminal and as files."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import pytest

from pipeline.commands.cli import main
from pipeline.commands.console import one_line, table
from pipeline.commands.graph_edges import JUMP, MAP, Edge, edges
from pipeline.commands.graph_layout import Layout
from pipeline.commands.graph_text import draw_text
from pipeline.commands.node_lines import wrapped_expression
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
GOLDEN = {
    "chain": (
        CHAIN,
        """\
┌─────────────────────────┐
│ decode                  │
│ S[DecodeMat,Mat2Tensor] │
│ 2 instances             │
└────────────┬────────────┘
             │
    ┌────────▼────────┐
    │ model           │
    │ TensorrtTensor  │
    │ 1 instance      │
    │ min 1           │
    │ max 4           │
    └─────────────────┘""",
    ),
    "diamond": (
        DIAMOND,
        """\
         ┌─────────────┐
         │ decode      │
         │ DecodeMat   │
         │ 1 instance  │
         └──────┬──────┘
       ┌────────┴───────┐
       │                │
┌──────▼──────┐  ┌──────▼──────┐
│ left        │  │ right       │
│ DecodeMat   │  │ DecodeMat   │
│ 1 instance  │  │ 1 instance  │
│             │  │ filter or   │
└──────┬──────┘  └──────┬──────┘
   ┌───┘         ┌──────┘
   │result:data  │result:mask
 ┌─▼─────────────▼─────────────┐
 │ join                        │
 │ DecodeMat                   │
 │ 1 instance                  │
 └─────────────────────────────┘""",
    ),
    "two_roots": (
        TWO_ROOTS,
        """\
  ┌─────────────┐  ┌─────────────┐
  │ jpeg        │  │ tensor      │
  │ DecodeMat   │  │ DecodeMat   │
  │ 1 instance  │  │ 1 instance  │
  └──────┬──────┘  └──────┬──────┘
  ┌──────┘      ┌─────────┘
  │result:data  │result:x, data:y
┌─▼─────────────▼─────────────────┐
│ model                           │
│ DecodeMat                       │
│ 1 instance                      │
└─────────────────────────────────┘""",
    ),
    "map_reduce": (
        MAP_REDUCE,
        """\
  ┌───────────────────────────┐
  │ each                      │
  │ MapReduce                 │
  │ split data, merge result  │
  └─────────────┬─────────────┘
       ┌╌╌╌╌╌╌╌╌┤
       ╎        └───────┐
       ╎jump            │
┌──────▼──────┐  ┌──────▼──────┐
│ crop        │  │ collect     │
│ DecodeMat   │  │ DecodeMat   │
│ 1 instance  │  │ 1 instance  │
└─────────────┘  └─────────────┘""",
    ),
}


def drawn(document: dict[str, Any], width: int = 100) -> str:
    return draw_text(parse_config(document), width)


@pytest.mark.parametrize("name", GOLDEN)
def test_the_terminal_shows_boxes_and_lines(name: str) -> None:
    document, picture = GOLDEN[name]
    assert drawn(document) == picture


def test_a_narrow_terminal_breaks_expressions() -> None:
    document = {"a": {"backend": "S[DecodeMat,cvtColorMat,Mat2Tensor]"}}
    assert max(map(len, drawn(document, 30).splitlines())) <= 30
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
    assert edges(parse_config(document)) == [
        Edge("a", "b"),
        Edge("b", "c", label="result:data"),
        Edge("a", "c", MAP, "data:image"),
    ]
    picture = drawn(document)
    assert "╎data:image" in picture
    assert "│result:data" in picture


def test_lines_lead_from_layer_to_layer_and_cross_as_little_as_they_can() -> None:
    layout = Layout("abcd", [Edge("a", "d"), Edge("b", "c"), Edge("a", "c", JUMP)])
    assert [[stop.node for stop in layer] for layer in layout.layers] == [["a", "b"], ["d", "c"]]
    assert all(s.end.layer == s.start.layer + 1 for s in layout.segments)


def test_boxes_of_a_layer_keep_their_distance() -> None:
    names = [f"n{number}" for number in range(6)]
    layout = Layout(["root", *names], [Edge("root", name) for name in names])
    sizes = {stop: 7 for layer in layout.layers for stop in layer}
    centres = sorted(layout.centres(sizes, 2)[stop] for stop in layout.layers[1])
    assert all(b - a >= 9 for a, b in pairwise(centres))


@pytest.mark.parametrize("document", [CHAIN, DIAMOND, TWO_ROOTS, MAP_REDUCE])
def test_files_hold_every_node(document: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "graph.toml"
    lines = [
        f"[{name}]\n" + "".join(f"{key} = {value!r}\n" for key, value in node.items())
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
