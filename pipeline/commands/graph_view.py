"""The graph of a pipeline as text for a terminal, and as Mermaid for a page."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import networkx as nx

from pipeline.config import NodeConfig, PipelineConfig

# Where a long expression may be broken: behind commas and opening brackets.
_PIECES = re.compile(r"[^,\[(]*[,\[(]?")
_NARROWEST = 16
_MERMAID_WIDTH = 40
# What means something in Mermaid's quotes; any character may stand there as #NUMBER;
_SPECIAL = re.compile(r"[\"#&;<>`\\]")


@dataclass(frozen=True)
class Edge:
    """A line from one node to another.

    Attributes:
        source: the node that it leaves.
        target: the node that it enters.
        kind: why it is there: a `next`, a `jump`, or a `map` that takes from a node further up.
        label: the keys that the target's `map` takes from the source, or "jump".
    """

    source: str
    target: str
    kind: Literal["next", "jump", "map"] = "next"
    label: str = ""


def edges(config: PipelineConfig) -> Iterator[Edge]:
    """All lines, in the order of the file."""
    for name, node in config.nodes.items():
        for following in node.place.next:
            yield Edge(name, following, label=_taken(config.nodes[following], name))
        for target in dict.fromkeys(node.jumps):
            yield Edge(name, target, "jump", "jump")
        for source in dict.fromkeys(mapped.source for mapped in node.place.mapping):
            if source not in config.graph.predecessors[name]:
                yield Edge(source, name, "map", _taken(node, source))


def as_text(config: PipelineConfig, width: int, *, ascii_only: bool = False) -> str:
    """The nodes as a tree, and then what each of them runs and takes.

    A node with several before it stands below the first; the others follow behind an arrow.

    Args:
        config: the nodes.
        width: columns of the terminal; longer lines are broken where they can be.
        ascii_only: whether its encoding has no lines and arrows.
    """
    graph = nx.DiGraph()
    graph.add_nodes_from(config.nodes)
    graph.add_edges_from((e.source, e.target) for e in edges(config) if e.kind != "map")
    tree = nx.generate_network_text(graph, vertical_chains=True, ascii_only=ascii_only)
    lines = [line.rstrip() for line in tree]
    margin = max(map(len, config.nodes)) + 2
    room = max(_NARROWEST, width - margin)
    for name, node in config.nodes.items():
        details = wrapped_expression(str(node.backend), room)
        sources = dict.fromkeys(mapped.source for mapped in node.place.mapping)
        taken = ", ".join(f"{source}[{_taken(node, source)}]" for source in sources)
        details += textwrap.wrap(
            ", ".join([*facts(node), *([f"map {taken}"] if taken else [])]), room
        )
        names = [name, *[""] * (len(details) - 1)]
        lines += ["", *(f"{n:{margin}}{text}" for n, text in zip(names, details, strict=True))]
    return "\n".join(lines)


def as_mermaid(config: PipelineConfig) -> str:
    """A flowchart in Mermaid's language, which code hosts draw from a block of that name."""
    numbers = {name: f"n{number}" for number, name in enumerate(config.nodes)}
    lines = ["flowchart TD"]
    for name, node in config.nodes.items():
        details = [*wrapped_expression(str(node.backend), _MERMAID_WIDTH), *facts(node)]
        text = "<br/>".join([f"<b>{_escaped(name)}</b>", *map(_escaped, details)])
        lines.append(f'    {numbers[name]}["{text}"]')
    for edge in edges(config):
        arrow = "-->" if edge.kind == "next" else "-.->"
        label = f'|"{_escaped(edge.label)}"|' if edge.label else ""
        lines.append(f"    {numbers[edge.source]} {arrow}{label} {numbers[edge.target]}")
    return "\n".join(lines)


def facts(node: NodeConfig) -> list[str]:
    """The instances, batch sizes and filter of a node, one a line."""
    settings = node.settings
    details = []
    if not node.is_jump:
        details.append(f"{node.instance_num} instance{'s' if node.instance_num > 1 else ''}")
    if node.jumps:
        details.append(f"jump {', '.join(node.jumps)}")
    keys = [name for name in ("split", "merge") if name in settings]
    details += [f"{name} {', '.join(settings[name])}" for name in keys]
    for name in ("min", "max"):
        if name in settings:
            shapes = settings[name] if isinstance(settings[name], tuple) else (settings[name],)
            details.append(f"{name} {'; '.join(map(str, shapes))}")
    if node.place.filter is not None:
        details.append(f"filter {node.place.filter}")
    return details


def wrapped_expression(expression: str, width: int) -> list[str]:
    """An expression in lines of at most `width` characters where it can be broken."""
    lines = [""]
    for piece in _PIECES.findall(expression):
        if lines[-1].strip() and len(lines[-1]) + len(piece) > width:
            lines.append("  ")
        lines[-1] += piece
    return lines


def _taken(node: NodeConfig, source: str) -> str:
    return ", ".join(
        f"{mapped.taken}:{mapped.given}" for mapped in node.place.mapping if mapped.source == source
    )


def _escaped(text: str) -> str:
    return _SPECIAL.sub(lambda match: f"#{ord(match.group())};", text)
