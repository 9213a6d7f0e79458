"""The graph of a pipeline as text for a terminal, and as Mermaid for a page."""

from __future__ import annotations

import re
import textwrap

import networkx as nx

from pipeline.commands.drawing import Drawing

# Where a long expression may be broken: behind commas and opening brackets.
_PIECES = re.compile(r"[^,\[(]*[,\[(]?")
_NARROWEST = 16
_MERMAID_WIDTH = 40
MARK_COLOUR = "#b3261e"
"""Of what is wrong."""
# What means something in Mermaid's quotes; any character may stand there as #NUMBER;
_SPECIAL = re.compile(r"[\"#&;<>`\\]")


def as_text(drawing: Drawing, width: int, *, ascii_only: bool = False) -> str:
    """The nodes as a tree, and then what each of them runs and takes.

    A node with several before it stands below the first; the others follow behind an arrow.

    Args:
        drawing: the nodes.
        width: columns of the terminal; longer lines are broken where they can be.
        ascii_only: whether its encoding has no lines and arrows.
    """
    graph = nx.DiGraph()
    graph.add_nodes_from(drawing.nodes)
    graph.add_edges_from((e.source, e.target) for e in drawing.edges if e.kind != "map")
    tree = nx.generate_network_text(graph, vertical_chains=True, ascii_only=ascii_only)
    lines = [line.rstrip() for line in tree]
    margin = max(map(len, drawing.nodes)) + 2
    room = max(_NARROWEST, width - margin)
    for name, node in drawing.nodes.items():
        details = wrapped_expression(node.backend, room)
        taken = ", ".join(f"{source}[{node.taken_from(source)}]" for source in node.sources)
        details += textwrap.wrap(
            ", ".join([*node.facts, *([f"map {taken}"] if taken else [])]), room
        )
        names = [name, *[""] * (len(details) - 1)]
        lines += ["", *(f"{n:{margin}}{text}" for n, text in zip(names, details, strict=True))]
    return "\n".join(lines)


def as_mermaid(drawing: Drawing) -> str:
    """A flowchart in Mermaid's language, which code hosts draw from a block of that name."""
    numbers = {name: f"n{number}" for number, name in enumerate(drawing.nodes)}
    lines = ["flowchart TD"]
    for name, node in drawing.nodes.items():
        details = [*wrapped_expression(node.backend, _MERMAID_WIDTH), *node.facts]
        text = "<br/>".join([f"<b>{_escaped(name)}</b>", *map(_escaped, details)])
        lines.append(f'    {numbers[name]}["{text}"]')
    for edge in drawing.edges:
        arrow = "-->" if edge.kind == "next" else "-.->"
        label = f'|"{_escaped(edge.label)}"|' if edge.label else ""
        lines.append(f"    {numbers[edge.source]} {arrow}{label} {numbers[edge.target]}")
    lines += [
        f"    style {numbers[name]} stroke:{MARK_COLOUR}"
        for name, node in drawing.nodes.items()
        if node.mark
    ]
    return "\n".join(lines)


def wrapped_expression(expression: str, width: int) -> list[str]:
    """An expression in lines of at most `width` characters where it can be broken."""
    if not expression:
        return []
    lines = [""]
    for piece in _PIECES.findall(expression):
        if lines[-1].strip() and len(lines[-1]) + len(piece) > width:
            lines.append("  ")
        lines[-1] += piece
    return lines


def _escaped(text: str) -> str:
    return _SPECIAL.sub(lambda match: f"#{ord(match.group())};", text)
