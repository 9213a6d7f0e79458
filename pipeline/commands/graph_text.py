"""The graph as text: boxes from top to bottom, and lines between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.commands.graph_edges import edges
from pipeline.commands.graph_layout import Layout, Segment, Stop
from pipeline.commands.node_lines import node_lines
from pipeline.config import PipelineConfig

_GAP = 2
_NARROWEST_TEXT = 16
_PORT_GAP = 3
# A line need not enter in the very middle if that saves it a bend.
_STRAIGHTENED = 2
_UP, _DOWN, _LEFT, _RIGHT = 1, 2, 4, 8
_CHARACTERS = {
    _UP: "│",
    _DOWN: "│",
    _LEFT: "─",
    _RIGHT: "─",
    _UP | _DOWN: "│",
    _LEFT | _RIGHT: "─",
    _DOWN | _RIGHT: "┌",
    _DOWN | _LEFT: "┐",
    _UP | _RIGHT: "└",
    _UP | _LEFT: "┘",
    _UP | _DOWN | _RIGHT: "├",
    _UP | _DOWN | _LEFT: "┤",
    _DOWN | _LEFT | _RIGHT: "┬",
    _UP | _LEFT | _RIGHT: "┴",
    _UP | _DOWN | _LEFT | _RIGHT: "┼",
}
_DASHED = {"│": "╎", "─": "╌"}


def draw_text(config: PipelineConfig, width: int) -> str:
    """The picture, in lines without blanks at their ends.

    Args:
        config: the nodes.
        width: columns of the terminal. Expressions are broken to fit; a graph with many nodes side
            by side may need more.
    """
    layout = Layout(config.nodes, edges(config))
    texts = {
        stop: node_lines(config.nodes[stop.node], _text_width(len(layer), width))
        for layer in layout.layers
        for stop in layer
        if stop.node is not None
    }
    sizes = {
        stop: _box_width(texts[stop], layout.entering(stop)) if stop in texts else 1
        for layer in layout.layers
        for stop in layer
    }
    centres = layout.centres(sizes, _GAP)
    ports = {
        segment: port
        for stop in centres
        for segment, port in _ports(layout.entering(stop), centres).items()
    }
    canvas = _Canvas()
    row = 0
    for number, layer in enumerate(layout.layers):
        height = max(len(texts[stop]) + 2 for stop in layer if stop in texts)
        for stop in layer:
            if stop in texts:
                left = centres[stop] - sizes[stop] // 2
                canvas.box(left, row, sizes[stop], height, texts[stop])
            else:
                is_dashed = stop.edge is not None and stop.edge.is_dashed
                canvas.line(centres[stop], row - 1, centres[stop], row + height, dashed=is_dashed)
        leaving = [s for s in layout.segments if s.start.layer == number]
        row = _draw_channel(canvas, row + height, leaving, centres, ports)
        for segment in leaving:
            if segment.end.node is not None:
                canvas.text(ports[segment], row, "▼")
    return str(canvas)


def _text_width(side_by_side: int, width: int) -> int:
    return max(_NARROWEST_TEXT, (width - _GAP * (side_by_side - 1)) // side_by_side - 4)


def _box_width(lines: Sequence[str], entering: Sequence[Segment]) -> int:
    """Room for the text, and for what stands beside the lines that end here."""
    room = max(max(map(len, lines)) + 4, sum(map(_port_room, entering)) + 2)
    return room | 1  # odd, so that there is a column in the middle


def _port_room(segment: Segment) -> int:
    return len(segment.edge.label) + _PORT_GAP


def _ports(entering: Sequence[Segment], centres: Mapping[Stop, int]) -> dict[Segment, int]:
    """The columns in which lines enter a stop, with room for their labels to the right."""
    if not entering:
        return {}
    centre = centres[entering[0].end]
    if len(entering) == 1:
        start = centres[entering[0].start]
        is_below = entering[0].end.node is not None and abs(start - centre) <= _STRAIGHTENED
        return {entering[0]: start if is_below else centre}
    column = centre - sum(map(_port_room, entering)) // 2 + 1
    ports = {}
    for segment in entering:
        ports[segment] = column
        column += _port_room(segment)
    return ports


@dataclass(frozen=True)
class _Bundle:
    """The lines from one stop to the next layer that share a horizontal part.

    Attributes:
        start: their column at the top.
        ends: their columns at the bottom.
        dashed: whether they are dashed.
    """

    start: int
    ends: tuple[int, ...]
    dashed: bool

    @property
    def span(self) -> tuple[int, int]:
        """The first and last column of the horizontal part."""
        return min(self.start, *self.ends), max(self.start, *self.ends)

    @property
    def is_straight(self) -> bool:
        """Whether it has no horizontal part."""
        return set(self.ends) == {self.start}


def _draw_channel(
    canvas: _Canvas,
    top: int,
    segments: Sequence[Segment],
    centres: Mapping[Stop, int],
    ports: Mapping[Segment, int],
) -> int:
    """The lines between two layers, from row `top` on; gives the row of the next layer."""
    if not segments:
        return top
    grouped: dict[tuple[Stop, bool], list[int]] = {}
    for segment in segments:
        key = (segment.start, segment.edge.is_dashed)
        grouped.setdefault(key, []).append(ports[segment])
    bundles = [
        _Bundle(centres[start], tuple(ends), dashed) for (start, dashed), ends in grouped.items()
    ]
    tracks = _tracks(bundles)
    bottom = top + max(tracks.values(), default=-1) + 2
    for bundle in bundles:
        track = top + tracks.get(bundle, 0)
        canvas.line(bundle.start, top - 1, bundle.start, track, dashed=bundle.dashed)
        canvas.line(bundle.span[0], track, bundle.span[1], track, dashed=bundle.dashed)
        for end in bundle.ends:
            canvas.line(end, track, end, bottom, dashed=bundle.dashed)
    for segment in segments:
        if segment.end.node is not None:
            canvas.text(ports[segment] + 1, bottom - 1, segment.edge.label)
    return bottom


def _tracks(bundles: Sequence[_Bundle]) -> dict[_Bundle, int]:
    """A row for each horizontal part: no two overlap, and no two lines share a vertical part.

    Where one bundle ends in the column in which another one starts, the latter has to turn off
    further up.
    """
    left = [bundle for bundle in bundles if not bundle.is_straight]
    rows: dict[_Bundle, int] = {}
    while left:
        free = [b for b in left if not any(o.start in b.ends for o in left if o is not b)] or left
        bundle = min(free, key=lambda b: b.span)
        taken = [
            row
            for other, row in rows.items()
            if _overlap(bundle.span, other.span) or other.start in bundle.ends
        ]
        rows[bundle] = max(taken, default=-1) + 1
        left.remove(bundle)
    return rows


def _overlap(one: tuple[int, int], other: tuple[int, int]) -> bool:
    return one[0] <= other[1] and other[0] <= one[1]


class _Canvas:
    """Characters by row and column; lines that meet join."""

    def __init__(self) -> None:
        self._arms: dict[tuple[int, int], int] = {}
        self._dashed: set[tuple[int, int]] = set()
        self._text: dict[tuple[int, int], str] = {}

    def line(self, x1: int, y1: int, x2: int, y2: int, *, dashed: bool = False) -> None:
        """A vertical or horizontal line, both ends included."""
        steps = max(abs(x2 - x1), abs(y2 - y1))
        for step in range(steps):
            across = y1 == y2
            here = (y1, x1 + step) if across else (y1 + step, x1)
            there = (y1, x1 + step + 1) if across else (y1 + step + 1, x1)
            self._arms[here] = self._arms.get(here, 0) | (_RIGHT if across else _DOWN)
            self._arms[there] = self._arms.get(there, 0) | (_LEFT if across else _UP)
            if dashed:
                self._dashed |= {here, there}

    def text(self, x: int, y: int, text: str) -> None:
        """Characters that cover whatever lies below them."""
        for offset, character in enumerate(text):
            self._text[y, x + offset] = character

    def box(self, x: int, y: int, width: int, height: int, lines: Sequence[str]) -> None:
        """A box with lines of text."""
        right, bottom = x + width - 1, y + height - 1
        self.line(x, y, right, y)
        self.line(x, bottom, right, bottom)
        self.line(x, y, x, bottom)
        self.line(right, y, right, bottom)
        for number, line in enumerate(lines):
            self.text(x + 2, y + 1 + number, line)

    def __str__(self) -> str:
        rows: dict[int, dict[int, str]] = {}
        for (row, column), arms in self._arms.items():
            character = _CHARACTERS[arms]
            if (row, column) in self._dashed:
                character = _DASHED.get(character, character)
            rows.setdefault(row, {})[column] = character
        for (row, column), character in self._text.items():
            rows.setdefault(row, {})[column] = character
        return "\n".join(
            "".join(cells.get(column, " ") for column in range(max(cells) + 1)).rstrip()
            for _, cells in sorted(rows.items())
        )
