"""One description of an option: name with unit, kind with bounds, default and help."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

_Settings = TypeVar("_Settings")


@dataclass(frozen=True)
class Kind:
    """What an option's text may be.

    Attributes:
        name: of what it is, as messages say it.
        parse: makes the value of the text.
        allowed: whether the value is within the bounds.
        bounds: the bounds, in words.
    """

    name: str
    parse: Callable[[str], Any]
    allowed: Callable[[Any], bool] = lambda _: True
    bounds: str = ""

    def __call__(self, text: str) -> Any:
        """The value of the text; argparse adds the option's name to what is wrong."""
        try:
            value = self.parse(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"invalid {self.name} value: {text!r}") from None
        if not self.allowed(value):
            raise argparse.ArgumentTypeError(f"must be {self.bounds}, got {text}")
        return value


def _counts(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


TEXT = Kind("text", str)
SEED = Kind("whole number", int)
COUNT = Kind("whole number", int, lambda value: value >= 1, "at least 1")
PORT = Kind("port", int, lambda value: 1 <= value <= 65_535, "1 to 65535")
SECONDS = Kind(
    "number of seconds", float, lambda value: 0 < value <= 86_400, "above 0 and at most 86400 s"
)
SECONDS_OR_NONE = Kind(
    "number of seconds", float, lambda value: 0 <= value <= 86_400, "0 to 86400 s"
)
MILLISECONDS = Kind(
    "number of milliseconds", float, lambda value: 0 < value < math.inf, "above 0 ms"
)
TOLERANCE = Kind("tolerance", float, lambda value: 0 <= value < 1, "at least 0 and below 1")
COUNTS = Kind(
    "list of whole numbers",
    _counts,
    lambda values: min(values) >= 1 and len(set(values)) == len(values),
    "different numbers of at least 1 with commas between",
)
FOLDER_NAME = Kind(
    "folder name",
    str,
    lambda text: text not in {"", ".", ".."} and "/" not in text,
    "a plain folder name",
)
SWITCH = Kind("switch", bool)


def some_of(names: Sequence[str]) -> Kind:
    """A list of some of these names, with commas between."""
    return Kind(
        "list of names",
        lambda text: tuple(text.split(",")),
        lambda chosen: set(chosen) <= set(names),
        f"some of {', '.join(names)}",
    )


def one_of(names: Sequence[str]) -> Kind:
    """One of these names."""
    return Kind("name", str, lambda text: text in names, f"one of {', '.join(names)}")


@dataclass(frozen=True)
class Option:
    """An option of one or more commands.

    Attributes:
        name: with underscores, as torchpipe's published test tool spells its own; dashes are
            accepted everywhere, too. Its end is the unit.
        kind: what it takes.
        default: where it is not given; text is parsed, too. Where it is None, parentheses at the
            end of the help say what is taken.
        help: what it is.
        metavar: what messages call its value.
        aliases: other names.
    """

    name: str
    kind: Kind
    default: Any
    help: str
    metavar: str | None = None
    aliases: tuple[str, ...] = ()

    @property
    def is_positional(self) -> bool:
        """True if it is a word that has its place, and no name before it."""
        return self.metavar == self.name.upper()


REQUIRED = object()


@dataclass(frozen=True)
class Command:
    """A command, its options and what it does.

    Attributes:
        help: what it is for.
        options: names of its options; of those with | between only one may be given.
        defaults: where the option's own does not suit the command.
        hidden: values of options that it has without taking them.
    """

    help: str
    options: str
    defaults: Mapping[str, Any] = field(default_factory=dict)
    hidden: Mapping[str, Any] = field(default_factory=dict)


class Parser(argparse.ArgumentParser):
    """Takes dashes for underscores in the names of options."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """What argparse does, with the one spelling of each name."""
        return super().parse_known_args(args and [*map(_spelled, args)], namespace)


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Leaves out defaults that say nothing."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)


def _spelled(word: str) -> str:
    name, equals, value = word.partition("=")
    if not name.startswith("--"):
        return word
    return f"--{name[2:].replace('-', '_')}{equals}{value}"


def build_parser(
    program: str, description: str, options: Sequence[Option], commands: Mapping[str, Command]
) -> Parser:
    """The parser of `python -m PROGRAM COMMAND`; the namespace has `command`, and all options."""
    known = {option.name: option for option in options}
    parser = Parser(prog=f"python -m {program}", description=description)
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in commands.items():
        aliases = [dashed] if (dashed := name.replace("_", "-")) != name else []
        own = subparsers.add_parser(name, aliases=aliases, help=command.help, formatter_class=_Help)
        for entry in command.options.split():
            names = entry.split("|")
            group = own.add_mutually_exclusive_group() if len(names) > 1 else own
            for option in names:
                _add(group, known[option], command)
        own.set_defaults(command=name, **command.hidden)
    return parser


def _add(parser: Any, option: Option, command: Command) -> None:
    default = command.defaults.get(option.name, option.default)
    text = option.help + (f"; {option.kind.bounds}" if option.kind.bounds else "")
    if option.kind is SWITCH:
        parser.add_argument(f"--{option.name}", action="store_true", help=option.help)
    elif option.is_positional:
        parser.add_argument(option.name, type=option.kind, help=text, metavar=option.metavar)
    else:
        parser.add_argument(
            *(f"--{name}" for name in (option.name, *option.aliases)),
            type=option.kind,
            default=None if default is REQUIRED else default,
            required=default is REQUIRED,
            help=text.replace("%", "%%"),
            metavar=option.metavar,
        )


def settings_from(kind: type[_Settings], options: argparse.Namespace, **others: Any) -> _Settings:
    """A dataclass of settings, whose fields are options of the same names or among `others`."""
    given = {**vars(options), **others}
    names = [entry.name for entry in fields(kind)]  # type: ignore[arg-type]
    return kind(**{name: given[name] for name in names if name in given})


def option_table(options: Sequence[Option], commands: Mapping[str, Command]) -> str:
    """The options in Markdown, as results/README.md has them: each with its default by command."""
    lines = ["| option | what it is | default |", "| --- | --- | --- |"]
    for option in options:
        defaults: dict[str, list[str]] = {}
        for name, command in commands.items():
            if option.name in command.options.replace("|", " ").split():
                default = command.defaults.get(option.name, option.default)
                shown = "required" if default is REQUIRED else f"`{default}`" if default else ""
                defaults.setdefault(shown, []).append(name)
        told = ", ".join(
            shown if len(defaults) == 1 else f"{shown or 'none'} ({', '.join(names)})"
            for shown, names in defaults.items()
        )
        text = "; ".join(filter(None, (option.help, option.kind.bounds)))
        spelling = option.metavar if option.is_positional else f"--{option.name}"
        lines.append(f"| `{spelling}` | {text} | {told} |")
    return "\n".join(lines) + "\n"
