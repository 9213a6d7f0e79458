"""Backend expressions: `S[DecodeMat,ResizeMat]`, `Torch[Sequential[DecodeMat]]`.

A recursive-descent parser after the manner of pypa/packaging's: each `_parse_*` docstring is its
own line of the grammar, and an error shows the text with a caret under the mistake.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from pipeline.errors import PipelineConfigError

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SPACE = re.compile(r"\s*")


@dataclass(frozen=True)
class Expression:
    """A backend's name and the backends inside its brackets."""

    name: str
    arguments: tuple[Expression, ...] = ()

    def __str__(self) -> str:
        if not self.arguments:
            return self.name
        return f"{self.name}[{','.join(map(str, self.arguments))}]"

    def names(self) -> list[str]:
        """Every backend name in the expression, outermost first."""
        return [self.name, *(name for inner in self.arguments for name in inner.names())]


def parse_expression(text: str) -> Expression:
    """Parse a backend expression.

    Raises:
        PipelineConfigError: with the text, a caret under the mistake, and what was expected.
    """
    return _Parser(text).parse()


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._position = 0

    def parse(self) -> Expression:
        """Whole = expression end."""
        expression = self._parse_expression()
        if self._position < len(self._text):
            raise self._error("expected ',' or the end" if expression.arguments else "expected '['")
        return expression

    def _parse_expression(self) -> Expression:
        """Expression = name [ '[' arguments ']' ]."""
        name = self._parse_name()
        if not self._take("["):
            return Expression(name)
        arguments = self._parse_arguments()
        if not self._take("]"):
            raise self._error("expected ',' or ']'")
        return Expression(name, arguments)

    def _parse_arguments(self) -> tuple[Expression, ...]:
        """Arguments = expression ( ',' expression )*."""
        arguments = [self._parse_expression()]
        while self._take(","):
            arguments.append(self._parse_expression())
        return tuple(arguments)

    def _parse_name(self) -> str:
        """Name = letter or '_', then letters, digits and '_'."""
        self._skip_space()
        match = _NAME.match(self._text, self._position)
        if match is None:
            raise self._error("expected the name of a backend")
        self._position = match.end()
        self._skip_space()
        return match.group()

    def _take(self, symbol: str) -> bool:
        if not self._text.startswith(symbol, self._position):
            return False
        self._position += 1
        self._skip_space()
        return True

    def _skip_space(self) -> None:
        match = _SPACE.match(self._text, self._position)
        if match is not None:
            self._position = match.end()

    def _error(self, expected: str) -> PipelineConfigError:
        caret = " " * self._position + "^"
        return PipelineConfigError(f"{expected}:\n    {self._text}\n    {caret}")
