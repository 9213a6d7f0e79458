"""Keys of one backend, `Sleep::time = 5`: the same as `Sleep(time=5)` in the node's expression.

`Sequential::backend = "A,B"`, or `::dependency` as torchpipe's main says, is `Sequential[A,B]`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pipeline.language.expression import Expression, parse_expression

_INNER = frozenset({"backend", "dependency"})


def scoped_to(key: str, expression: Expression) -> bool:
    """Whether the key is one of a backend that is in the expression."""
    backend, separator, _ = key.rpartition("::")
    return bool(separator) and backend in expression.names()


def with_scoped_keys(expression: Expression, values: Mapping[str, Any]) -> Expression:
    """The expression with those values that are keys of its backends; the others are left alone.

    What the expression says itself comes first.

    Raises:
        PipelineConfigError: backends under a key that cannot be read.
    """
    own = {
        key.rpartition("::")[2]: value
        for key, value in values.items()
        if key.rpartition("::")[0] == expression.name
    }
    inner = [own.pop(key) for key in sorted(_INNER & own.keys())]
    arguments = expression.arguments
    if inner and not arguments:
        arguments = parse_expression(f"{expression.name}[{inner[0]}]").arguments
    given = {key: _text(value) for key, value in own.items()} | dict(expression.settings)
    return replace(
        expression,
        arguments=tuple(with_scoped_keys(argument, values) for argument in arguments),
        settings=tuple(given.items()),
    )


def _text(value: Any) -> str:
    """A value of TOML as the parentheses of an expression have it."""
    return str(value).lower() if isinstance(value, bool) else str(value)
