"""One description of an option, as the metadata of a settings dataclass's field.

The command line, `--help`, the checks of values and the README's table are made of it.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any

# A number that fits wherever it goes, and a time that the kernel and Python can wait: three years.
MOST = 10**12
LONGEST_S = 1e8
# A range whose end is lower is always shown whole.
_SHOWN_RANGE = 100_000
# Numbers with their digits in groups, in the README.
_GROUPED = 10_000
_METADATA = "option"


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
        end = (
            f" and at most {self.most:.0f}"
            if max(self.most, _SHOWN_RANGE) < value < math.inf
            else ""
        )
        return f"must be {self}{end}, got {value}" + (f"; {self.why}" if self.why else "")


POSITIVE = Bounds(1, MOST)
NOT_NEGATIVE = Bounds(0, MOST)
SECONDS = Bounds(0, LONGEST_S, is_finite=True)
SECONDS_ABOVE_0 = Bounds(0, LONGEST_S, is_open=True, is_finite=True)


@dataclass(frozen=True)
class Option:
    """One option of the command line; its name is that of its field, and ends with the unit.

    Attributes:
        help: what it is.
        parse: makes the value of the text.
        bounds: of a number; None for any.
        choices: the values of a name; empty for any.
        metavar: what `--help` calls the value.
        default_text: what is used where the option is not given, unless the field's default says.
        name: of the option, where it is not that of the field.
        alias: an earlier name, which is accepted, too.
        group: "model" or "server".
        is_switch: whether it takes no value, and turns the field off.
        is_repeated: whether it may be given more than once; the values are a list.
        is_required: whether it has to be given.
        is_file: whether the value names a file that has to be there.
        refused: handlers that have no use for it, with the reason; a silently ignored option would
            mislead.
        beyond: for the README: what happens beyond the limit.
    """

    help: str
    parse: Callable[[str], Any] = str
    bounds: Bounds | None = None
    choices: Sequence[str] = ()
    metavar: str | None = None
    default_text: str = ""
    name: str = ""
    alias: str = ""
    group: str = "server"
    is_switch: bool = False
    is_repeated: bool = False
    is_required: bool = False
    is_file: bool = False
    refused: Mapping[str, str] = field(default_factory=dict)
    beyond: str = ""

    @property
    def text(self) -> str:
        """What it is, with its bounds."""
        bounds = "" if self.bounds is None else self.bounds.shown
        return f"{self.help}; {bounds}" if bounds else self.help


def option(default: Any, help: str, **details: Any) -> Any:
    """A dataclass field that is an option; the details are those of `Option`.

    Args:
        default: the field's, or a callable that makes it.
        help: as in `Option`.
        **details: further attributes of `Option`.
    """
    metadata = {_METADATA: Option(help, **details)}
    if callable(default):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


def options_of(settings: type) -> Iterator[tuple[Field[Any], Option]]:
    """The fields of a settings dataclass that are options."""
    for entry in fields(settings):
        if _METADATA in entry.metadata:
            yield entry, entry.metadata[_METADATA]


def spelled(entry: Field[Any]) -> str:
    """An option as it is written: --max-frame-bytes."""
    described: Option = entry.metadata[_METADATA]
    return f"--{dashed(described.name or entry.name)}"


def dashed(name: str) -> str:
    """The name of an option as it is written, without the dashes in front."""
    return name.replace("_", "-")


def default_text(entry: Field[Any]) -> str:
    """The default of an option in words, "" where it has none."""
    described: Option = entry.metadata[_METADATA]
    if described.default_text or described.is_switch or entry.default in (None, (), MISSING):
        return described.default_text
    if isinstance(entry.default, float):
        return f"{entry.default:g}"
    if isinstance(entry.default, tuple):
        return ",".join(map(str, entry.default))
    return str(entry.default)


def out_of_bounds(settings: Any) -> Iterator[str]:
    """The numbers of a settings dataclass that are not allowed, with what is."""
    for entry, described in options_of(type(settings)):
        bounds, value = described.bounds, getattr(settings, entry.name)
        if bounds is not None and value is not None and (problem := bounds.problem(value)):
            yield f"{entry.name} {problem}"


def option_table(*settings: type) -> str:
    """The options in Markdown, as the README has them."""
    lines = ["| option | default | what it is |", "|---|---|---|"]
    for entry, described in (pair for one in settings for pair in options_of(one)):
        beyond = f". Beyond it: {described.beyond}" if described.beyond else ""
        shown = "required" if described.is_required else default_text(entry)
        if shown.isdigit() and int(shown) >= _GROUPED:
            shown = f"{int(shown):,}"
        alias = f", earlier `--{dashed(described.alias)}`" if described.alias else ""
        lines.append(f"| `{spelled(entry)}`{alias} | {shown} | {described.text}{beyond} |")
    return "\n".join(lines) + "\n"


def channels(text: str) -> tuple[float, ...]:
    """One number, or one for each channel."""
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


def names(text: str) -> tuple[str, ...]:
    """Different names, in the order given."""
    return tuple(dict.fromkeys(part.strip().lower() for part in text.split(",")))


def gpu_numbers(text: str) -> tuple[int, ...]:
    """Different GPU numbers."""
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
