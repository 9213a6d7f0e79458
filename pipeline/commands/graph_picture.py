"""The graph of a pipeline as an SVG or PNG file: boxes from left to right, and lines between."""

from __future__ import annotations

from itertools import count, pairwise
from pathlib import Path
from statistics import fmean
from typing import Any, TypeAlias

import matplotlib as mpl
import networkx as nx
from matplotlib.figure import Figure

from pipeline.commands.drawing import Drawing, Edge
from pipeline.commands.graph_view import MARK_COLOUR, wrapped_expression

# A node's name, or the number of a place where a line passes a layer.
Stop: TypeAlias = "str | int"

_TEXT: Any = {"family": "DejaVu Sans Mono", "size": 9, "parse_math": False}
_TEXT |= {"va": "center", "ha": "center"}
_CHARACTER_INCHES, _LINE_INCHES, _GAP_INCHES = 0.076, 0.16, 0.5
_LONGEST_TEXT = 40
_COLOUR = "#44546a"
_BOX = {"boxstyle": "round,pad=0.6", "facecolor": "#eef3fa", "edgecolor": _COLOUR}
_LABEL = {"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none"}


def draw_picture(drawing: Drawing, path: Path, title: str) -> None:
    """Write the picture.

    Args:
        drawing: the nodes, without a cycle.
        path: the file; its suffix, .svg or .png, says what it becomes.
        title: goes into the file's metadata.

    Raises:
        OSError: the file cannot be written.
    """
    texts = {
        name: [name, *wrapped_expression(node.backend, _LONGEST_TEXT), *node.facts]
        for name, node in drawing.nodes.items()
    }
    layers, ways = _layers(drawing)
    characters = max(len(line) for lines in texts.values() for line in lines)
    characters += max((len(edge.label) for edge in ways), default=0) + 4
    column = characters * _CHARACTER_INCHES + _GAP_INCHES
    row = max(map(len, texts.values())) * _LINE_INCHES + _GAP_INCHES
    width, height = len(layers) * column, max(map(len, layers)) * row
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    places = {
        stop: ((x + 0.5) * column, (y + 0.5) * height / len(layer))
        for x, layer in enumerate(layers)
        for y, stop in enumerate(layer)
    }
    boxes: dict[Stop, Any] = {
        name: axes.text(
            *places[name],
            "\n".join(lines),
            ma="left",
            bbox={**_BOX, "edgecolor": MARK_COLOUR} if drawing.nodes[name].mark else _BOX,
            **_TEXT,
        )
        for name, lines in texts.items()
    }
    patches = {name: box.get_bbox_patch() for name, box in boxes.items()}
    for edge, way in ways.items():
        for start, end in pairwise(way):
            arrow = {
                "arrowstyle": "-|>" if end in patches else "-",
                "color": _COLOUR,
                "linestyle": "-" if edge.kind == "next" else "--",
                "patchA": patches.get(start),
                "patchB": patches.get(end),
                "shrinkA": 0,
                "shrinkB": 0,
            }
            axes.annotate("", places[end], places[start], arrowprops=arrow)
        (x1, y1), (x2, y2) = places[way[-2]], places[way[-1]]
        axes.text((x1 + x2) / 2, (y1 + y2) / 2, edge.label, bbox=_LABEL, **_TEXT)
    # Without a date and with fixed names inside, the same graph gives the same file.
    with mpl.rc_context({"svg.hashsalt": "thriftpipe"}):
        metadata = {"Title": title, **({"Date": None} if path.suffix == ".svg" else {})}
        figure.savefig(path, dpi=144, metadata=metadata)


def _layers(drawing: Drawing) -> tuple[list[list[Stop]], dict[Edge, list[Stop]]]:
    """The stops of each layer in order, and those of each line, one a layer."""
    graph = nx.DiGraph((edge.source, edge.target) for edge in drawing.edges)
    graph.add_nodes_from(drawing.nodes)
    layers: list[list[Stop]] = [list(layer) for layer in nx.topological_generations(graph)]
    layer_of = {name: number for number, layer in enumerate(layers) for name in layer}
    layers[0] = [name for name in drawing.nodes if layer_of[name] == 0]
    numbers = count()
    ways: dict[Edge, list[Stop]] = {}
    before: dict[Stop, list[Stop]] = {}
    for edge in drawing.edges:
        way: list[Stop] = [edge.source]
        for layer in layers[layer_of[edge.source] + 1 : layer_of[edge.target]]:
            way.append(next(numbers))
            layer.append(way[-1])
        ways[edge] = [*way, edge.target]
        for start, end in pairwise(ways[edge]):
            before.setdefault(end, []).append(start)
    for upper, lower in pairwise(layers):
        # Each stands next to what hands it its items, so that few lines cross.
        height = {stop: number / len(upper) for number, stop in enumerate(upper)}
        mean_height = {stop: fmean(height[other] for other in before[stop]) for stop in lower}
        lower.sort(key=mean_height.__getitem__)
    return layers, ways
