"""Where the nodes of a picture stand: in layers, so that every line leads from one to a later one.

The steps are those of Sugiyama, Tagawa and Toda (1981), "Methods for Visual Understanding of
Hierarchical System Structures": layers by the longest way, a stop in every layer that a long line
passes, the order within a layer by the mean of the neighbours, and then the coordinates.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from pipeline.commands.graph_edges import Edge

_SWEEPS = 8


@dataclass(frozen=True)
class Stop:
    """A node, or a place that a line passes between two nodes.

    Attributes:
        layer: its layer's number, from 0 upstream.
        node: the node's name, or None.
        edge: the line that passes here, or None where a node is.
    """

    layer: int
    node: str | None = None
    edge: Edge | None = None


@dataclass(frozen=True)
class Segment:
    """The part of a line between two neighbouring layers."""

    edge: Edge
    start: Stop
    end: Stop


class Layout:
    """The stops in their layers and order.

    Args:
        names: all nodes, in the order of the file.
        edges: the lines between them, which form no cycle.

    Attributes:
        layers: the stops of each layer, in order.
        segments: the lines, cut at the layers.
    """

    def __init__(self, names: Iterable[str], edges: Sequence[Edge]) -> None:
        ranks = _ranks(list(names), edges)
        nodes = {name: Stop(rank, node=name) for name, rank in ranks.items()}
        self.layers: list[list[Stop]] = [[] for _ in range(max(ranks.values()) + 1)]
        for stop in nodes.values():
            self.layers[stop.layer].append(stop)
        self.segments: list[Segment] = []
        for edge in edges:
            start = nodes[edge.source]
            for layer in range(start.layer + 1, ranks[edge.target]):
                passed = Stop(layer, edge=edge)
                self.layers[layer].append(passed)
                self.segments.append(Segment(edge, start, passed))
                start = passed
            self.segments.append(Segment(edge, start, nodes[edge.target]))
        self._order()

    def entering(self, stop: Stop) -> list[Segment]:
        """The segments that end at a stop, in the order of where they come from."""
        position = {other: i for layer in self.layers for i, other in enumerate(layer)}
        into = [segment for segment in self.segments if segment.end == stop]
        return sorted(into, key=lambda segment: position[segment.start])

    def centres(self, sizes: Mapping[Stop, int], gap: int) -> dict[Stop, int]:
        """Where the middle of each stop is, across the layers.

        Args:
            sizes: how much room each stop takes across the layers.
            gap: the least room between two of a layer.
        """
        centres: dict[Stop, float] = {}
        down, up = range(len(self.layers)), range(len(self.layers) - 2, -1, -1)
        for layer in (*down, *up, *down):
            stops = self.layers[layer]
            wanted = [_mean([centres[other] for other in self._around(s, centres)]) for s in stops]
            offsets = [0.0]
            for before, after in pairwise(stops):
                offsets.append(offsets[-1] + (sizes[before] + sizes[after]) / 2 + gap)
            centres.update(zip(stops, _apart(wanted, offsets), strict=True))
        left = min(centre - sizes[stop] / 2 for stop, centre in centres.items())
        return {stop: int(centre - left) for stop, centre in centres.items()}

    def _around(self, stop: Stop, placed: Mapping[Stop, float]) -> list[Stop]:
        before = [s.start for s in self.segments if s.end == stop]
        after = [s.end for s in self.segments if s.start == stop]
        return [other for other in (*before, *after) if other in placed]

    def _order(self) -> None:
        best, fewest = [list(layer) for layer in self.layers], self._crossings()
        for sweep in range(_SWEEPS):
            downwards = sweep % 2 == 0
            for layer in self.layers if downwards else reversed(self.layers):
                self._sort_layer(layer, downwards=downwards)
            if (crossings := self._crossings()) < fewest:
                best, fewest = [list(layer) for layer in self.layers], crossings
        self.layers = best

    def _sort_layer(self, layer: list[Stop], *, downwards: bool) -> None:
        position = {stop: i for other in self.layers for i, stop in enumerate(other)}

        def mean(stop: Stop) -> float:
            neighbours = [
                position[segment.start if downwards else segment.end]
                for segment in self.segments
                if stop == (segment.end if downwards else segment.start)
            ]
            return _mean(neighbours) if neighbours else position[stop]

        layer.sort(key=mean)

    def _crossings(self) -> int:
        position = {stop: i for layer in self.layers for i, stop in enumerate(layer)}
        lines = [(s.start.layer, position[s.start], position[s.end]) for s in self.segments]
        return sum(
            a[0] == b[0] and (a[1] - b[1]) * (a[2] - b[2]) < 0
            for i, a in enumerate(lines)
            for b in lines[:i]
        )


def _ranks(names: Sequence[str], edges: Sequence[Edge]) -> dict[str, int]:
    """The length of the longest way to each node."""
    ranks = dict.fromkeys(names, 0)
    for _ in names:
        for edge in edges:
            ranks[edge.target] = max(ranks[edge.target], ranks[edge.source] + 1)
    return ranks


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _apart(wanted: Sequence[float], offsets: Sequence[float]) -> list[float]:
    """The places nearest to those wanted (least squares) that keep the offsets' distances.

    Neighbours that want to stand too close become one block with one place: the pool adjacent
    violators algorithm of isotonic regression.
    """
    blocks: list[tuple[float, int]] = []
    for place, offset in zip(wanted, offsets, strict=True):
        blocks.append((place - offset, 1))
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (a, count_a), (b, count_b) = blocks[-2:]
            total = count_a + count_b
            blocks[-2:] = [((a * count_a + b * count_b) / total, total)]
    shifts = [shift for shift, count in blocks for _ in range(count)]
    return [shift + offset for shift, offset in zip(shifts, offsets, strict=True)]
