"""What expressions of Prometheus read."""

from __future__ import annotations

from collections.abc import Iterator

import promql_parser


def selected_series(node: object) -> Iterator[str]:
    """The names of all series that a parsed expression reads."""
    if isinstance(node, promql_parser.VectorSelector):
        yield str(node.name)
    for name in ("vector_selector", "vs", "lhs", "rhs", "expr", "args"):
        below = getattr(node, name, None)
        for one in below if isinstance(below, list) else [below]:
            if one is not None and not isinstance(one, str):
                yield from selected_series(one)
