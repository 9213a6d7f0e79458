"""Options of this project as click's parameters.

click finds mistakes, writes `--help` and completes words. Values stay text: the program reads them
again, by the same kinds.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import click
from click.shell_completion import CompletionItem

from interfaces.engines import PROVIDERS
from interfaces.options import REQUIRED, Option, dashed

Entries: TypeAlias = Sequence[Sequence[Option]]
"""The options of a command; of several in one list only one may be given."""

_FOLDERS = ("DIR", "FOLDER")
_ENGINES = ("auto", *dict.fromkeys(provider.name for provider in PROVIDERS))


# Generic in the newest versions only.
class TextOfKind(click.ParamType):  # type: ignore[type-arg]
    """Text of an option's kind, which stays text."""

    def __init__(self, described: Option) -> None:
        self.name = described.kind.name
        self._described = described

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The same text; BadParameter for one of another kind."""
        try:
            self._described.kind(str(value))
        except argparse.ArgumentTypeError as error:
            self.fail(str(error), param, ctx)
        return str(value)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Known words, of a list the next one; else files or folders."""
        del ctx, param
        described = self._described
        words = _ENGINES if described.name == "engine" else described.kind.choices
        if words:
            before, comma, begun = incomplete.rpartition(",")
            return [
                CompletionItem(f"{before}{comma}{word}") for word in words if word.startswith(begun)
            ]
        metavar = described.metavar or described.kind.metavar or ""
        if metavar in _FOLDERS:
            return [CompletionItem(incomplete, type="dir")]
        if described.kind.bounds is None and described.kind.metavar in (None, "FILE"):
            return [CompletionItem(incomplete, type="file")]
        return []


def spelling(described: Option) -> str:
    """An option as messages call it: its name with dashes, or the place of its word."""
    if described.is_positional:
        return described.metavar or described.name.upper()
    return f"--{dashed(described.name)}"


def metavar(described: Option) -> str:
    """What stands for an option's value; "" for a switch."""
    if described.is_switch:
        return ""
    # The description lists the words.
    usual = "NAME" if described.kind.choices else described.kind.metavar
    return described.metavar or usual or "TEXT"


class DescribedOption(click.Option):
    """An option with a name."""

    def __init__(self, described: Option) -> None:
        names = [f"--{dashed(name)}" for name in (described.name, *described.aliases)]
        if described.short:
            names.append(f"-{described.short}")
        kind: dict[str, Any] = {"type": TextOfKind(described), "metavar": metavar(described)}
        if described.is_switch and described.is_gathered:
            kind = {"is_flag": False, "flag_value": "true", "metavar": "[true|false]"}
        elif described.is_switch:
            kind = {"is_flag": True, "flag_value": True}
        super().__init__(
            [described.name, *names],
            required=described.default is REQUIRED,
            multiple=described.is_repeated or (described.is_gathered and not described.is_switch),
            help=described.text.replace("`", ""),
            **kind,
        )
        self.described = described


class DescribedArgument(click.Argument):
    """A word that has its place."""

    def __init__(self, described: Option) -> None:
        super().__init__(
            [described.name],
            type=TextOfKind(described),
            nargs=-1 if described.is_repeated else 1,
            required=described.default in (None, REQUIRED),
            metavar=spelling(described),
        )
        self.described = described


def parameters(entries: Entries) -> list[click.Parameter]:
    """Parameters of click for the options of a command."""
    return [
        DescribedArgument(described) if described.is_positional else DescribedOption(described)
        for entry in entries
        for described in entry
    ]


def refuse_several(entries: Entries, given: Mapping[str, Any], ctx: click.Context) -> None:
    """Raise UsageError where two options are given that exclude each other."""
    for entry in entries:
        both = [described for described in entry if given.get(described.name)]
        if len(both) > 1:
            names = " and ".join(map(spelling, both))
            raise click.UsageError(f"{names} exclude each other; give one of them", ctx)


def words(entries: Entries, given: Mapping[str, Any]) -> Iterator[str]:
    """The command line that the program behind the door reads: what was given, and no more."""
    places: list[str] = []
    for described in (described for entry in entries for described in entry):
        value = given.get(described.name)
        if value is None or value is False:
            continue
        values = value if isinstance(value, tuple) else (value,)
        if described.is_positional:
            places += values
        elif described.is_switch and value in (True, "true"):
            yield spelling(described)
        else:
            yield from (f"{spelling(described)}={text}" for text in values)
    if any(place.startswith("-") and place != "-" for place in places):
        yield "--"
    yield from places
