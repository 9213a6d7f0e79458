"""The backends of a node's expression, each with the settings that count for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.backend import Backend
from pipeline.config import NodeConfig
from pipeline.expression import Expression
from pipeline.registry import backend_class, backend_settings


@dataclass(frozen=True)
class Member:
    """One backend.

    Attributes:
        name: as the expression spells it.
        cls: its class.
        settings: typed values by name: what the expression says, else the node's.
        own: the names of those that the expression says for this backend or around it.
    """

    name: str
    cls: type[Backend]
    settings: Mapping[str, Any]
    own: frozenset[str]


def members(node: NodeConfig) -> Iterator[Member]:
    """All backends of a node, outermost first."""
    return _members(node.backend, node.settings, frozenset())


def _members(
    expression: Expression, settings: Mapping[str, Any], own: frozenset[str]
) -> Iterator[Member]:
    known = backend_settings()
    given = {key: known[key].parse(text, expression.name) for key, text in expression.settings}
    settings, own = {**settings, **given}, own | given.keys()
    yield Member(expression.name, backend_class(expression.name), settings, own)
    for inner in expression.arguments:
        yield from _members(inner, settings, own)
