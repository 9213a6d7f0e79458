"""What the text of an option may be: how it is read, and its bounds."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from interfaces.names import closest_name_hint, shortened

# A number that fits wherever it goes, and a time that the kernel and Python can wait: three years.
MOST = 10**12
LONGEST_S = 1e8
# A range whose end is lower is always shown whole.
_SHOWN_RANGE = 100_000
MOST_SIDE = 8192
"""The most pixels along a side of an image that a classifier takes or an operator makes."""


@dataclass(frozen=True)
class Bounds:
    """The values that a number may have.

    Attributes:
        least: the smallest one.
        most: the largest one.
        is_open: whether the smallest one itself is not allowed.
        is_finite: whether to say that infinity is not allowed.
        why: why there is no more, or "".
    """

    least: float
    most: float
    is_open: bool = False
    is_finite: bool = False
    why: str = ""

    def __str__(self) -> str:
        if self.most < _SHOWN_RANGE:
            if self.is_open:
                return f"above {self.least} and at most {self.most}"
            return f"{self.least} to {self.most}"
        start = f"{'above' if self.is_open else 'at least'} {self.least}"
        return f"{start} and finite" if self.is_finite else start

    @property
    def shown(self) -> str:
        """The bounds for a description; "" where they say little."""
        return str(self) if self.most < _SHOWN_RANGE or self.is_open else ""

    def problem(self, value: float) -> str:
        """What is wrong with a value; "" if nothing is."""
        if (self.least < value if self.is_open else self.least <= value) and value <= self.most:
            return ""
        is_told = self.most < _SHOWN_RANGE
        end = "" if is_told or not self.most < value < math.inf else f" and at most {self.most:.0f}"
        return f"must be {self}{end}, got {value}" + (f"; {self.why}" if self.why else "")


@dataclass(frozen=True)
class Kind:
    """What an option's text may be.

    Attributes:
        name: of what it is, as messages call it.
        parse: makes the value of the text; raises ValueError for a text of another kind, or
            ArgumentTypeError with what is wrong.
        bounds: of a number; None for any.
        rule: what else is allowed, in words, or "".
        metavar: what `--help` calls the value, unless the option says.
        choices: the words that it may be, or that stand in its list; empty for others.
    """

    name: str
    parse: Callable[[str], Any] = str
    bounds: Bounds | None = None
    rule: str = ""
    metavar: str | None = None
    choices: Sequence[str] = ()

    def __call__(self, text: str) -> Any:
        """The value of the text; argparse adds the option's name to what is wrong."""
        try:
            value = self.parse(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"takes a {self.name}, got {text!r}") from None
        if self.bounds is None or value is None:
            return value
        if problem := self.bounds.problem(value):
            raise argparse.ArgumentTypeError(problem)
        return value

    @property
    def shown(self) -> str:
        """What is allowed, for a description; "" where that says little."""
        return self.rule or (self.bounds.shown if self.bounds is not None else "")


def one_of(names: Sequence[str]) -> Kind:
    """One of these names."""

    def parse(text: str) -> str:
        if text not in names:
            hint = closest_name_hint(text, names).rstrip(".")
            raise argparse.ArgumentTypeError(
                f"must be one of {', '.join(names)}, got {text!r}{hint}"
            )
        return text

    rule = f"one of {', '.join(names)}"
    metavar = f"{{{','.join(names)}}}"
    return Kind("name", parse, rule=rule, metavar=metavar, choices=names)


def some_of(names: Sequence[str]) -> Kind:
    """A list of some of these names, with commas between."""
    one = one_of(names)
    rule = f"some of {', '.join(names)}"
    return Kind(
        "list of names", lambda text: tuple(map(one, text.split(","))), rule=rule, choices=names
    )


def or_word(number: Kind, word: str) -> Kind:
    """A number, or a word that leaves it open: None."""

    def parse(text: str) -> Any:
        if text == word:
            return None
        try:
            return number.parse(text)
        except ValueError:
            hint = closest_name_hint(text, [word]).rstrip(".")
            raise argparse.ArgumentTypeError(
                f"takes a {number.name} or {word}, got {text!r}{hint}"
            ) from None

    return replace(number, parse=parse, rule=f"{word} or {number.bounds}", choices=(word,))


def _counts(text: str) -> list[int]:
    values = [int(part) for part in text.split(",")]
    if min(values) < 1 or len(set(values)) < len(values):
        raise argparse.ArgumentTypeError(f"must be {COUNTS.rule}, got {text}")
    return values


def _tolerance(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"must be {TOLERANCE.rule}, got {text}")
    return value


def _folder_name(text: str) -> str:
    if text in {"", ".", ".."} or "/" in text:
        raise argparse.ArgumentTypeError(f"must be {FOLDER_NAME.rule}, got {text}")
    return text


def _channels(text: str) -> tuple[float, ...]:
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) not in (1, 3) or not all(map(math.isfinite, values)):
        raise argparse.ArgumentTypeError(
            f"takes one number or three with commas between, such as 123.675,116.28,103.53; "
            f"got {text!r}"
        )
    return values


def _assignment(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key.strip() or not equals:
        raise argparse.ArgumentTypeError(
            f"takes [NODE.]KEY=VALUE, such as batching_timeout=2, got {shortened(text)!r}"
        )
    return key.strip(), value.strip()


def _url(text: str) -> str:
    if not text.startswith(("http://", "https://")):
        raise argparse.ArgumentTypeError(f"must be a URL {URL.rule}, got {text!r}")
    try:
        parts = urlsplit(text)
        is_address = bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_address = False
    if not is_address:
        raise argparse.ArgumentTypeError(
            f"must be a URL with a host, and a port from 1 to 65535 if any, got {text!r}"
        )
    return text


def _gpu_numbers(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise argparse.ArgumentTypeError(
            f"takes GPU numbers from 0 with commas between, such as 0,1; got {text!r}"
        )
    numbers = tuple(map(int, parts))
    if repeated := [number for number in numbers if numbers.count(number) > 1]:
        raise argparse.ArgumentTypeError(
            f"takes each GPU once; {repeated[0]} is there more than once in {text!r}"
        )
    return numbers


def _size(text: str) -> tuple[int, int]:
    height, by, width = text.partition("x")
    sides = (int(height), int(width if by else height))
    if not all(1 <= side <= MOST_SIDE for side in sides):
        raise argparse.ArgumentTypeError(f"must be {SIZE.rule}, got {text}")
    return sides


TEXT = Kind("text")
URL = Kind("URL", _url, rule="beginning with http:// or https://", metavar="URL")
FILE = Kind("file", metavar="FILE")
"""A file that has to be there."""
SWITCH = Kind("switch")
"""Without a value: True where it is given."""
OFF_SWITCH = Kind("switch")
"""Without a value: False where it is given."""
WHOLE_NUMBER = Kind("whole number", int, metavar="N")
COUNT = Kind("whole number", int, Bounds(1, MOST), metavar="N")
COUNT_OR_0 = Kind("whole number", int, Bounds(0, MOST), metavar="N")
PORT_NUMBER = Kind("port", int, Bounds(1, 65_535), metavar="PORT")
PORT_OR_0 = Kind("port", int, Bounds(0, 65_535), metavar="PORT")
WHOLE_MILLISECONDS = Kind("whole number of milliseconds", int, Bounds(0, MOST), metavar="MS")
MILLISECONDS = Kind(
    "number of milliseconds", float, Bounds(0, MOST, is_open=True, is_finite=True), metavar="MS"
)
SECONDS = Kind(
    "number of seconds", float, Bounds(0, LONGEST_S, is_open=True, is_finite=True), metavar="S"
)
SECONDS_OR_0 = Kind("number of seconds", float, Bounds(0, LONGEST_S, is_finite=True), metavar="S")
DURATION = Kind("number of seconds", float, Bounds(0, 86_400, is_open=True), metavar="S")
"""Seconds of a measurement: a day at most."""
DURATION_OR_0 = Kind("number of seconds", float, Bounds(0, 86_400), metavar="S")
RATE = Kind(
    "number of requests a second",
    float,
    Bounds(0, 50_000, is_open=True, why="more ports than that a host does not have"),
    metavar="N",
)
MULTIPLE = Kind("number", float, Bounds(0, 100), metavar="X")
"""How many times as much."""
TOLERANCE = Kind("tolerance", _tolerance, rule="at least 0 and below 1")
COUNTS = Kind(
    "list of whole numbers",
    _counts,
    rule="different numbers of at least 1 with commas between",
    metavar="N,N",
)
FOLDER_NAME = Kind("folder name", _folder_name, rule="a plain folder name")
CHANNELS = Kind("number for each channel", _channels, metavar="R,G,B")
"""One number, or one for each channel."""
ASSIGNMENT = Kind("assignment", _assignment, metavar="[NODE.]KEY=VALUE")
"""A key of a pipeline's file, and its new value."""
GPU_NUMBERS = Kind("list of GPU numbers", _gpu_numbers, metavar="N,N")
"""Different numbers of GPUs."""
SIDE = Kind("whole number of pixels", int, Bounds(1, MOST_SIDE), metavar="N")
"""Of an image, in pixels."""
SIZE = Kind(
    "size such as 224 or 224x320 (height x width)",
    _size,
    rule=f"pixels: one number, or height x width, each 1 to {MOST_SIDE}",
    metavar="N|HxW",
)
"""Height and width of an image, which may be the same."""
NAMES = Kind(
    "list of names",
    lambda text: tuple(dict.fromkeys(part.strip().lower() for part in text.split(","))),
    metavar="NAME,NAME",
)
"""Different names, in the order given."""
