"""The graph as an SVG or PNG file: boxes from left to right, and lines between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path as Curve

from pipeline.commands.graph_edges import edges
from pipeline.commands.graph_layout import Layout, Segment, Stop
from pipeline.commands.node_lines import node_lines
from pipeline.config import PipelineConfig

# All lengths are in points, 1/72 inch.
_FAMILY = "DejaVu Sans Mono"  # comes with matplotlib
_FONT = 9.0
_CHARACTER = 0.61 * _FONT
_LINE = 1.35 * _FONT
_PADDING = 8.0
_BOX_GAP = 22
_CHANNEL = 44.0
_PASSING = 14
_ARROW = 11.0
_MARGIN = 14.0
_LONGEST_TEXT = 40
_PIXELS_PER_INCH = 144
_POINTS_PER_INCH = 72

_EDGE = "#44546a"
_BOX = "#eef3fa"
_TEXT = "#1b2430"
_QUIET = "#55606e"


def draw_figure(config: PipelineConfig, path: Path, title: str) -> None:
    """Write the picture.

    Args:
        config: the nodes.
        path: the file; its suffix, .svg or .png, says what it becomes.
        title: stands in the file's metadata.

    Raises:
        OSError: the file cannot be written.
    """
    layout = Layout(config.nodes, edges(config))
    boxes = _boxes(config, layout)
    height = max(box.bottom for box in boxes.values()) + _MARGIN
    width = max(box.right for box in boxes.values()) + _MARGIN
    figure = Figure(figsize=(width / _POINTS_PER_INCH, height / _POINTS_PER_INCH))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)  # downwards, as text is read
    for box in boxes.values():
        _draw_box(axes, box)
    ends = _ends(layout, boxes)
    for edge in dict.fromkeys(segment.edge for segment in layout.segments):
        _draw_edge(axes, [s for s in layout.segments if s.edge == edge], boxes, ends)
    # Without a date and with fixed names inside, the same graph gives the same file.
    with mpl.rc_context({"svg.hashsalt": "thriftpipe"}):
        metadata = {"Title": title, **({"Date": None} if path.suffix == ".svg" else {})}
        figure.savefig(path, dpi=_PIXELS_PER_INCH, metadata=metadata)


@dataclass(frozen=True)
class _Box:
    """A stop and where it is: a node's box, or the stretch in which a line passes a layer."""

    lines: list[str]
    left: float
    right: float
    top: float
    bottom: float

    @property
    def middle(self) -> float:
        """Halfway between top and bottom."""
        return (self.top + self.bottom) / 2


def _boxes(config: PipelineConfig, layout: Layout) -> dict[Stop, _Box]:
    stops = [stop for layer in layout.layers for stop in layer]
    texts = {
        stop: [] if stop.node is None else node_lines(config.nodes[stop.node], _LONGEST_TEXT)
        for stop in stops
    }
    heights = {
        stop: round(2 * _PADDING + _LINE * max(len(lines), len(layout.entering(stop)) + 1))
        if lines
        else _PASSING
        for stop, lines in texts.items()
    }
    middles = layout.centres(heights, _BOX_GAP)
    boxes = {}
    x = _MARGIN
    for number, layer in enumerate(layout.layers):
        if number:
            labels = [len(s.edge.label) for s in layout.segments if s.end.layer == number]
            x += _CHANNEL + _CHARACTER * max(labels)
        widths = {s: max(map(len, texts[s]), default=0) * _CHARACTER + 2 * _PADDING for s in layer}
        column = max(widths.values())
        for stop in layer:
            spare = (column - widths[stop]) / 2 if texts[stop] else 0.0
            top = _MARGIN + middles[stop] - heights[stop] / 2
            boxes[stop] = _Box(texts[stop], x + spare, x + column - spare, top, top + heights[stop])
        x += column
    return boxes


def _draw_box(axes: Axes, box: _Box) -> None:
    if not box.lines:
        return
    axes.add_patch(
        FancyBboxPatch(
            (box.left, box.top),
            box.right - box.left,
            box.bottom - box.top,
            boxstyle="round,pad=0,rounding_size=4",
            facecolor=_BOX,
            edgecolor=_EDGE,
            linewidth=1.1,
            zorder=2,
        )
    )
    for number, line in enumerate(box.lines):
        axes.text(
            box.left + _PADDING,
            box.top + _PADDING + _LINE * (number + 0.5),
            line,
            family=_FAMILY,
            size=_FONT,
            weight="normal" if number else "bold",
            color=_QUIET if number else _TEXT,
            verticalalignment="center",
            zorder=3,
        )


def _ends(layout: Layout, boxes: Mapping[Stop, _Box]) -> dict[Segment, float]:
    """The height at which each segment ends: spread over the side of a box."""
    ends = {}
    for stop, box in boxes.items():
        entering = layout.entering(stop)
        for number, segment in enumerate(entering, start=1):
            ends[segment] = box.top + (box.bottom - box.top) * number / (len(entering) + 1)
    return ends


def _draw_edge(
    axes: Axes,
    segments: Sequence[Segment],
    boxes: Mapping[Stop, _Box],
    ends: Mapping[Segment, float],
) -> None:
    """A line that bends between the layers, and runs straight past boxes and under its label."""
    edge = segments[0].edge
    label_width = _CHARACTER * len(edge.label)
    points = [(boxes[segments[0].start].right, boxes[segments[0].start].middle)]
    codes = [Curve.MOVETO]
    for segment in segments:
        start, end = boxes[segment.start], boxes[segment.end]
        height = ends[segment]
        if points[-1][0] < start.right:
            points.append((start.right, points[-1][1]))
            codes.append(Curve.LINETO)
        bent = (end.left - label_width - _ARROW) if segment.end.node is not None else end.left
        half = (start.right + bent) / 2
        points += [(half, points[-1][1]), (half, height), (bent, height)]
        codes += [Curve.CURVE4] * 3
    points.append((boxes[segments[-1].end].left, points[-1][1]))
    codes.append(Curve.LINETO)
    axes.add_patch(
        FancyArrowPatch(
            path=Curve(points, codes),
            arrowstyle="-|>",
            mutation_scale=10,
            color=_EDGE,
            linewidth=1.2,
            linestyle=(0, (4, 3)) if edge.is_dashed else "solid",
            shrinkA=0,
            shrinkB=0,
            zorder=1,
        )
    )
    axes.text(
        points[-1][0] - _ARROW,
        points[-1][1] - 2,
        edge.label,
        family=_FAMILY,
        size=_FONT - 1,
        color=_TEXT,
        horizontalalignment="right",
        verticalalignment="bottom",
        zorder=4,
    )
