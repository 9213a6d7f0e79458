"""What a picture says inside a node's box."""

from __future__ import annotations

import re

from pipeline.backends.map_reduce import MAP_REDUCE
from pipeline.config import NodeConfig

# Where a long expression may be broken: behind commas and opening brackets.
_PIECES = re.compile(r"[^,\[(]*[,\[(]?")
_INDENT = "  "


def node_lines(node: NodeConfig, width: int) -> list[str]:
    """The node's name, then its expression, instances, batch sizes and filter.

    Args:
        node: the node.
        width: characters of the longest line; only what cannot be broken is longer.
    """
    lines = [node.name, *wrapped_expression(str(node.backend), width)]
    settings = node.settings
    if node.backend.name == MAP_REDUCE:
        lines.append(f"split {settings['split']}, merge {settings['merge']}")
    else:
        lines.append(f"{node.instance_num} instance{'s' if node.instance_num > 1 else ''}")
    for name in ("min", "max"):
        if name in settings:
            shapes = settings[name] if isinstance(settings[name], tuple) else (settings[name],)
            lines.append(f"{name} {'; '.join(map(str, shapes))}")
    if node.place.filter is not None:
        lines.append(f"filter {node.place.filter}")
    return lines


def wrapped_expression(expression: str, width: int) -> list[str]:
    """An expression in lines of at most `width` characters where it can be broken."""
    lines = [""]
    for piece in _PIECES.findall(expression):
        if lines[-1].strip() and len(lines[-1]) + len(piece) > width:
            lines.append(_INDENT)
        lines[-1] += piece
    return lines
