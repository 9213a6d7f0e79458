"""The lines of a pipeline's picture: who hands what to whom."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.config import NodeConfig, PipelineConfig

NEXT, JUMP, MAP = "next", "jump", "map"
"""Why a line is there: `next`; a MapReduce's `jump`; a `map` that takes from further up."""


@dataclass(frozen=True)
class Edge:
    """One line.

    Attributes:
        source: the node that it leaves.
        target: the node that it enters.
        kind: NEXT, JUMP or MAP.
        label: what stands beside it: the keys that the target's `map` takes from the source.
    """

    source: str
    target: str
    kind: str = NEXT
    label: str = ""

    @property
    def is_dashed(self) -> bool:
        """Whether it is something else than an ordinary `next`."""
        return self.kind != NEXT


def edges(config: PipelineConfig) -> list[Edge]:
    """All lines, in the order of the file."""
    graph = config.graph
    found = []
    for name, node in config.nodes.items():
        found += [
            Edge(name, other, NEXT, _taken(config.nodes[other], name)) for other in node.place.next
        ]
        if (jump := node.settings.get("jump")) is not None:
            found.append(Edge(name, jump, JUMP, JUMP))
        sources = dict.fromkeys(mapped.source for mapped in node.place.mapping)
        found += [
            Edge(source, name, MAP, _taken(node, source))
            for source in sources
            if source not in graph.predecessors[name]
        ]
    return found


def _taken(node: NodeConfig, source: str) -> str:
    return ", ".join(
        f"{mapped.taken}:{mapped.given}" for mapped in node.place.mapping if mapped.source == source
    )
