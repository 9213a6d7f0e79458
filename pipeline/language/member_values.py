"""Values for the members of a sequence: `jump = "||x|y"` in a node with `S[A,B,Jump,Jump]`.

A value with "|" between has a part for each member, in their order. A member does not get an empty
part, nor one under a key that it does not read: any word may stand there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

from pipeline.errors import PipelineConfigError
from pipeline.language.expression import Expression, parse_expression

_BETWEEN = "|"
# Whether a member reads a key.
Reads: TypeAlias = Callable[[Expression, str], bool]


def member_values(table: Mapping[str, Any], reads: Reads) -> dict[str, list[str]]:
    """Of a node's table, by key, the values that have a part for each member of its sequence."""
    texts = {k: v for k, v in table.items() if isinstance(v, str) and _BETWEEN in v}
    if not texts:
        return {}
    try:
        members = _sequence(parse_expression(table.get("backend") or "")).arguments
    except (PipelineConfigError, TypeError):
        return {}  # which is told where the backend is read
    split = {key: [part.strip() for part in text.split(_BETWEEN)] for key, text in texts.items()}
    return {
        key: parts
        for key, parts in split.items()
        if len(parts) == len(members) and any(reads(member, key) for member in members)
    }


def with_member_values(
    expression: Expression, values: Mapping[str, list[str]], reads: Reads
) -> Expression:
    """The expression with these values, see `member_values`, as settings of its members.

    What the expression says itself comes first.
    """
    if not values:
        return expression
    if len(expression.arguments) == 1:
        inner = with_member_values(expression.arguments[0], values, reads)
        return replace(expression, arguments=(inner,))
    members = []
    for position, member in enumerate(expression.arguments):
        given = {
            key: parts[position]
            for key, parts in values.items()
            if parts[position] and reads(member, key)
        }
        settings = {**given, **dict(member.settings)}
        members.append(replace(member, settings=tuple(settings.items())))
    return replace(expression, arguments=tuple(members))


def _sequence(expression: Expression) -> Expression:
    """The outermost expression with several in its brackets, or the innermost one."""
    while len(expression.arguments) == 1:
        (expression,) = expression.arguments
    return expression
