"""One description of an option: its command line, `--help`, checks and documentation follow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Any, TypeVar

from interfaces.kinds import OFF_SWITCH, SWITCH, TEXT, Kind
from interfaces.markdown import prose_table

REQUIRED = object()
"""The default of an option that has to be given."""
# Numbers with their digits in groups, in a table.
_GROUPED = 10_000
_METADATA = "option"
_Settings = TypeVar("_Settings")


@dataclass(frozen=True)
class Option:
    """An option of one or more commands.

    Attributes:
        name: with underscores; its end is the unit.
        kind: what it takes.
        default: where it is not given; argparse parses text.
        help: what it is.
        metavar: what `--help` calls its value, unless its kind says.
        aliases: other names.
        short: a letter that stands for it after one dash, or "".
        default_text: what is used if it is not given, where the default alone does not say it.
        dest: the attribute that gets the value, where it is not the name.
        is_positional: whether it is a word without a name before it; it may be left out if it has a
            default.
        is_repeated: whether there may be several; the value is a list.
        is_gathered: whether the program itself finds out which of several counts, and takes a
            switch as NAME=false, too.
        group: the title in `--help` that it stands under, or "".
        refused: handlers of the service that have no use for it, with the reason; a silently
            ignored option would mislead.
        beyond: for the documentation: what happens beyond the limit.
    """

    name: str
    kind: Kind
    default: Any
    help: str
    metavar: str | None = None
    aliases: tuple[str, ...] = ()
    short: str = ""
    default_text: str = ""
    dest: str = ""
    is_positional: bool = False
    is_repeated: bool = False
    is_gathered: bool = False
    group: str = ""
    refused: Mapping[str, str] = field(default_factory=dict)
    beyond: str = ""

    @property
    def text(self) -> str:
        """What it is, with what is allowed."""
        return f"{self.help}; {self.kind.shown}" if self.kind.shown else self.help

    @property
    def is_switch(self) -> bool:
        """Whether it takes no value."""
        return self.kind in (SWITCH, OFF_SWITCH)

    @property
    def shown_default(self) -> str:
        """What is used where it is not given, in words; "" where that is nothing."""
        default = self.default
        if self.default_text or self.is_switch or default in (None, (), [], REQUIRED):
            return self.default_text
        if isinstance(default, tuple | list):
            return ",".join(map(str, default))
        return f"{default:g}" if isinstance(default, float) else str(default)


def dashed(name: str) -> str:
    """A name as it is written with dashes, without those in front."""
    return name.replace("_", "-")


def option(default: Any, help: str, kind: Kind = TEXT, name: str = "", **details: Any) -> Any:
    """A dataclass field that is an option.

    Args:
        default: the field's, or a callable that makes it.
        help: as in `Option`.
        kind: as in `Option`.
        name: of the option, where it is not the field's.
        **details: further attributes of `Option`.
    """
    metadata = {_METADATA: Option(name, kind, None, help, **details)}
    if callable(default):
        return field(default_factory=default, metadata=metadata)
    if default is REQUIRED:
        return field(metadata=metadata)
    return field(default=default, metadata=metadata)


def options_of(settings: type) -> Iterator[Option]:
    """The fields of a settings dataclass that are options; `dest` is the field."""
    for entry in fields(settings):
        if _METADATA in entry.metadata:
            described: Option = entry.metadata[_METADATA]
            is_required = entry.default is entry.default_factory is MISSING
            without = REQUIRED if is_required else None
            default = without if entry.default is MISSING else entry.default
            name = described.name or entry.name
            yield replace(described, name=name, dest=entry.name, default=default)


def out_of_bounds(settings: Any) -> Iterator[str]:
    """The numbers of a settings dataclass that are not allowed, with what is."""
    for described in options_of(type(settings)):
        bounds, value = described.kind.bounds, getattr(settings, described.dest)
        if bounds is not None and value is not None and (problem := bounds.problem(value)):
            yield f"{described.dest} {problem}"


def option_table(options: Iterable[Option]) -> str:
    """The options of a program in Markdown."""
    rows = []
    for described in options:
        beyond = f". Beyond it: {described.beyond}" if described.beyond else ""
        shown = "required" if described.default is REQUIRED else described.shown_default
        if shown.isdigit() and int(shown) >= _GROUPED:
            shown = f"{int(shown):,}"
        aliases = "".join(f", earlier `--{dashed(alias)}`" for alias in described.aliases)
        short = f", `-{described.short}`" if described.short else ""
        spelling = f"`--{dashed(described.name)}`{short}{aliases}"
        rows.append((spelling, shown, f"{described.text}{beyond}"))
    return prose_table(["option", "default", "what it is"], rows)


@dataclass(frozen=True)
class Command:
    """A command of a program, and its options.

    Attributes:
        help: what it is for.
        options: names of its options; of those with | between only one may be given.
        defaults: where the option's own does not suit the command.
        hidden: values of options that it has without taking them.
        description: more of what it is for; "" where there is no more.
        private: options of its own, in place of those of all commands.
    """

    help: str
    options: str
    defaults: Mapping[str, Any] = field(default_factory=dict)
    hidden: Mapping[str, Any] = field(default_factory=dict)
    description: str = ""
    private: Sequence[Option] = ()

    def takes(self, name: str) -> bool:
        """Whether it has the option of that name."""
        return name in self.options.replace("|", " ").split()

    def own(self, described: Option) -> Option:
        """The option with the command's own default."""
        return replace(described, default=self.defaults.get(described.name, described.default))

    def entries(self, shared: Iterable[Option]) -> Iterator[list[Option]]:
        """Its options; of several in one list only one may be given.

        Args:
            shared: the options of all commands.
        """
        known = {described.name: described for described in (*shared, *self.private)}
        for entry in self.options.split():
            yield [self.own(known[name]) for name in entry.split("|")]


def picked(options: Iterable[Option], names: str, **changes: Any) -> list[Option]:
    """Some of the options, in the order of their names, with other attributes."""
    known = {described.name: described for described in options}
    return [replace(known[name], **changes) for name in names.split()]


def settings_from(kind: type[_Settings], options: Any, **others: Any) -> _Settings:
    """A dataclass of settings, whose fields are options of the same names or among `others`."""
    given = {**vars(options), **others}
    names = [entry.name for entry in fields(kind)]  # type: ignore[arg-type]
    return kind(**{name: given[name] for name in names if name in given})
