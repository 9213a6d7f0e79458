"""Backend expressions: `S[DecodeMat,ResizeMat(resize_h=224)]`, `S[DecodeTensor,(or)S[DecodeMat]]`.

The grammar is torchpipe's; only quotes around values are this project's own. A recursive-descent
parser after the manner of pypa/packaging's: each `_parse_*` docstring is its own line of the
grammar, and an error shows the text with a caret under the mistake. Blanks may stand between all
symbols.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from pipeline.errors import PipelineConfigError

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# A node's name, too, which a logical one ends with a dot and more.
_BACKEND = re.compile(rf"{_NAME.pattern}(?:\.[A-Za-z0-9_]+)*")
_KEY = re.compile(rf"{_NAME.pattern}(?:::{_NAME.pattern})*")
_BLANKS = re.compile(r"\s*")
_PLAIN = re.compile(r"[^,)]*")
_IN_QUOTES = {quote: re.compile(rf"(?:[^\\{quote}]|\\['\"\\])*") for quote in "'\""}
_ESCAPED = re.compile(r"\\(.)")
# What reads well without quotes: less than what parses.
_NEEDS_NO_QUOTES = re.compile(r"[^\s,=&()\[\]'\"\\]+")

# The backend behind a filter without one.
_NOTHING = "Identity"
# Far more than any expression needs, and far less than what Python's stack takes.
_MAX_DEPTH = 100
# How much of a long line an error shows on each side of the mistake.
_SHOWN_CHARACTERS = 60


@dataclass(frozen=True)
class Expression:
    """A backend's name, what is set for it alone, and the backends inside its brackets.

    Attributes:
        name: the backend's.
        arguments: the backends in its brackets.
        settings: keys and values in its parentheses, in the order written; the values as text.
        filter: the name of the filter in front of it, or None.
    """

    name: str
    arguments: tuple[Expression, ...] = ()
    settings: tuple[tuple[str, str], ...] = ()
    filter: str | None = None

    def __str__(self) -> str:
        """Text that parses to an equal expression."""
        before = "" if self.filter is None else f"({self.filter})"
        settings = ",".join(f"{key}={_value_text(value)}" for key, value in self.settings)
        arguments = ",".join(map(str, self.arguments))
        return (
            f"{before}{self.name}"
            f"{f'({settings})' if settings else ''}"
            f"{f'[{arguments}]' if arguments else ''}"
        )

    def names(self) -> list[str]:
        """Every backend name in the expression, outermost first."""
        return [self.name, *(name for inner in self.arguments for name in inner.names())]

    def filters(self) -> list[str]:
        """Every filter in the expression, in order."""
        own = [] if self.filter is None else [self.filter]
        return [*own, *(name for inner in self.arguments for name in inner.filters())]


def parse_expression(text: str) -> Expression:
    """The tree of backends in a text such as `S[DecodeMat,ResizeMat(resize_h=224)]`.

    Raises:
        PipelineConfigError: with the text, a caret under the mistake, and what was expected.
    """
    return _Parser(text).parse()


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._position = 0
        self._depth = 0

    def parse(self) -> Expression:
        """Whole = expression end."""
        self._skip_blanks()
        expression = self._parse_expression()
        if self._at(","):
            raise self._error("expected one backend; several in turn go in brackets, as in S[A,B]")
        if self._position < len(self._text):
            raise self._error("expected ',' or the end" if expression.arguments else "expected '['")
        return expression

    def _parse_expression(self) -> Expression:
        """Expression = [ filter ] name [ settings ] [ '[' arguments ']' ] | filter."""
        filter_name = self._parse_filter() if self._take("(") else None
        if filter_name is not None and (self._at(",") or self._at("]")):
            return Expression(_NOTHING, filter=filter_name)
        name = self._parse_name("a backend" if filter_name is None else "the filter's backend")
        settings = self._parse_settings() if self._take("(") else ()
        arguments = self._parse_arguments() if self._at("[") else ()
        if arguments and self._at("("):
            raise self._error("expected settings before the brackets, as in A(key=value)[B]")
        if self._at("&"):
            raise self._error(
                "'&' between backends is not supported; join two nodes by next, or give one "
                "backend several profiles with ';', as in max = \"1;4\""
            )
        return Expression(name, arguments, settings, filter_name)

    def _parse_filter(self) -> str:
        """Filter = '(' name ')'."""
        name = self._parse_name("a filter")
        if not self._take(")"):
            raise self._error(
                "expected ')'; settings stand behind their backend, as in A(key=value)"
            )
        return name

    def _parse_settings(self) -> tuple[tuple[str, str], ...]:
        """Settings = '(' setting ( ',' setting )* ')'."""
        settings: dict[str, str] = {}
        self._parse_setting(settings)
        while self._take(","):
            self._parse_setting(settings)
        if not self._take(")"):
            raise self._error("expected ',' or ')'")
        return tuple(settings.items())

    def _parse_setting(self, settings: dict[str, str]) -> None:
        """Setting = key '=' ( quoted | plain ); each key once."""
        start = self._position
        key = self._take_match(_KEY)
        if not key:
            raise self._error("expected a setting such as key=value")
        if key in settings:
            raise self._error("expected a key that has no value yet", start)
        if not self._take("="):
            raise self._error(
                "expected '='; settings are key=value, and a filter stands before its backend, "
                "as in (or)A"
            )
        quoted = self._at("'") or self._at('"')
        settings[key] = self._parse_quoted() if quoted else self._parse_plain()

    def _parse_quoted(self) -> str:
        r"""Quoted = a quote, anything with \ before that quote and before \, the same quote."""
        start = self._position
        quote = self._text[start]
        self._position += 1
        value = self._match(_IN_QUOTES[quote])
        if self._at("\\"):
            raise self._error(r"expected \\, \' or \" for a backslash in quotes")
        if not self._take(quote):
            raise self._error(f"expected another {quote} that closes this one", start)
        return _ESCAPED.sub(r"\1", value)

    def _parse_plain(self) -> str:
        """Plain = anything up to ',' or ')', without the blanks around it."""
        start = self._position
        value = self._take_match(_PLAIN).rstrip()
        if not value:
            raise self._error("expected a value; the empty one is ''", start)
        return value

    def _parse_arguments(self) -> tuple[Expression, ...]:
        """Arguments = '[' expression ( ',' expression )* ']'."""
        if self._depth == _MAX_DEPTH:
            raise self._error(f"expected at most {_MAX_DEPTH} brackets inside one another")
        self._depth += 1
        self._take("[")
        arguments = [self._parse_expression()]
        while self._take(","):
            arguments.append(self._parse_expression())
        if not self._take("]"):
            raise self._error("expected ',' or ']'")
        self._depth -= 1
        return tuple(arguments)

    def _parse_name(self, whose: str) -> str:
        """Name = letter or '_', then letters, digits and '_', and more of these behind dots."""
        name = self._take_match(_BACKEND)
        if not name:
            raise self._error(f"expected the name of {whose}")
        return name

    def _at(self, symbol: str) -> bool:
        return self._text.startswith(symbol, self._position)

    def _take(self, symbol: str) -> bool:
        if not self._at(symbol):
            return False
        self._position += 1
        self._skip_blanks()
        return True

    def _take_match(self, pattern: re.Pattern[str]) -> str:
        text = self._match(pattern)
        self._skip_blanks()
        return text

    def _skip_blanks(self) -> None:
        self._match(_BLANKS)

    def _match(self, pattern: re.Pattern[str]) -> str:
        """What the pattern matches here, and go on behind it; nothing if it does not."""
        match = pattern.match(self._text, self._position)
        if match is None:
            return ""
        self._position = match.end()
        return match.group()

    def _error(self, expected: str, position: int | None = None) -> PipelineConfigError:
        at = self._position if position is None else position
        return PipelineConfigError(_marked(expected, self._text, at))


def _value_text(value: str) -> str:
    """The value as it is written in an expression: in quotes where it needs them."""
    if _NEEDS_NO_QUOTES.fullmatch(value):
        return value
    quote = '"' if "'" in value and '"' not in value else "'"
    escaped = re.sub(rf"[\\{quote}]", r"\\\g<0>", value)
    return f"{quote}{escaped}{quote}"


def _marked(expected: str, text: str, position: int) -> str:
    """The message, the line of the text with the mistake, and a caret under that.

    Of a long line only the part around the mistake is shown. So that the caret stands right in a
    terminal, blanks of any kind are shown as one space, and what cannot be printed as U+FFFD.
    """
    position = min(position, len(text.rstrip()))  # the end is behind what was written last
    lines = text.split("\n")
    number = text.count("\n", 0, position)
    column = position - (text.rfind("\n", 0, position) + 1)
    before, after = lines[number][:column], lines[number][column:]
    if len(before) > _SHOWN_CHARACTERS:
        before = f"...{before[-_SHOWN_CHARACTERS:]}"
    if len(after) > _SHOWN_CHARACTERS:
        after = f"{after[:_SHOWN_CHARACTERS]}..."
    where = f" (line {number + 1} of {len(lines)})" if len(lines) > 1 else ""
    indent = " " * sum(map(_columns, _printable(before)))
    return f"{expected}{where}:\n    {_printable(before)}{_printable(after)}\n    {indent}^"


def _printable(text: str) -> str:
    return "".join(
        " " if character.isspace() else character if character.isprintable() else "\ufffd"
        for character in text
    )


def _columns(character: str) -> int:
    """How wide a terminal shows it: East Asian ones take two columns, accents on others none."""
    if unicodedata.category(character) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
