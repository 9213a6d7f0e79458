"""Command lines, made of options and commands."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

from interfaces.kinds import OFF_SWITCH
from interfaces.names import unknown_name
from interfaces.options import REQUIRED, Command, Option, dashed

BROKEN_PIPE = 141
"""The exit code, as a shell has it, of a program whose output's reader has gone."""
INTERRUPTED = 130
"""The same of one that Ctrl-C has ended."""


class Parser(argparse.ArgumentParser):
    """Tells a mistake in one line, with the closest name where one was mistyped.

    Names of options and commands may be written with dashes or underscores.

    Attributes:
        writes_underscores: how it writes them itself.
        commands: their parsers; empty where the program has none.
    """

    def __init__(self, *, writes_underscores: bool = False, **others: Any) -> None:
        super().__init__(allow_abbrev=False, **others)
        self.writes_underscores = writes_underscores
        self.commands: dict[str, Parser] = {}

    def error(self, message: str) -> NoReturn:
        """End the process with exit code 2."""
        self.exit(2, f"error: {message} (see {self.prog} --help)\n")

    def parse(self, words: Sequence[str] | None = None) -> argparse.Namespace:
        """The options of a command line, with the command's name under `command`.

        A mistake, and `--help`, end the process.

        Args:
            words: the command line; None for this process's own.
        """
        given = self.spelled(sys.argv[1:] if words is None else words)
        chosen = self
        if self.commands:
            place = next((i for i, word in enumerate(given) if not word.startswith("-")), None)
            if place is not None:
                names = {dashed(name): name for name in self.commands}
                given[place] = name = names.get(dashed(given[place]), given[place])
                if name not in self.commands:
                    self.error(unknown_name("command", name, self.commands))
                chosen = self.commands[name]
        options, unknown = self.parse_known_args(given)
        if chosen is self and self.commands:
            self.error(f"a command is missing: one of {', '.join(self.commands)}")
        if unknown:
            known = (name for name in chosen._option_string_actions if name.startswith("--"))
            chosen.error(unknown_name("option", unknown[0].split("=")[0], known))
        return options

    def _written(self, name: str) -> str:
        return name.replace("-", "_") if self.writes_underscores else dashed(name)

    def spelled(self, words: Sequence[str]) -> list[str]:
        """A command line with the names of options as the parser has them."""
        end = words.index("--") if "--" in words else len(words)
        return [*map(self._spelled, words[:end]), *words[end:]]

    def _spelled(self, word: str) -> str:
        if not word.startswith("--"):
            return word
        name, equals, value = word[2:].partition("=")
        return f"--{self._written(name)}{equals}{value}"

    def add(self, described: Option, place: Any = None, *, is_left_out: bool = False) -> None:
        """Take an option.

        Args:
            described: the option.
            place: the group that it stands in; None for none.
            is_left_out: whether the result lacks it where it is not given.
        """
        default = described.shown_default
        text = f"{described.text} (default: {default})" if default else described.text
        dest = described.dest or described.name
        metavar = described.metavar or described.kind.metavar
        details: dict[str, Any] = {"help": text.replace("`", "").replace("%", "%%")}
        names: Iterable[str] = (described.name, *described.aliases)
        names = [f"--{self._written(name)}" for name in names]
        if described.short:
            names.append(f"-{described.short}")
        if not described.is_positional:
            details.update(dest=dest, default=described.default)
        if is_left_out:
            details["default"] = argparse.SUPPRESS
        if described.is_switch:
            details["action"] = "store_false" if described.kind is OFF_SWITCH else "store_true"
        elif described.is_positional:
            names = [dest]
            details.update(type=described.kind, metavar=metavar)
            if described.is_repeated:
                details["nargs"] = "+"
            elif described.default is not None:
                details.update(nargs="?", default=described.default)
        else:
            details.update(type=described.kind, metavar=metavar)
            if described.is_repeated:
                details["action"] = "append"
            if described.default is REQUIRED:
                details.update(required=True, default=None)
        (place or self).add_argument(*names, **details)


def build_parser(
    program: str,
    description: str,
    options: Iterable[Option],
    commands: Mapping[str, Command],
    *,
    epilog: str | None = None,
    writes_underscores: bool = False,
) -> Parser:
    """The parser of `python -m PROGRAM COMMAND`.

    Args:
        program: its module.
        description: what it is for.
        options: those of all commands.
        commands: name to command.
        epilog: what `--help` says in the end.
        writes_underscores: whether it writes names of options with underscores itself.
    """
    shared = tuple(options)
    style: dict[str, Any] = {"writes_underscores": writes_underscores}
    parser = Parser(prog=f"python -m {program}", description=description, epilog=epilog, **style)
    # Not required here, so that a missing or unknown one is told with the closest name.
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)
    for name, command in commands.items():
        own = subparsers.add_parser(
            name, help=command.help, description=command.description or command.help, **style
        )
        parser.commands[name] = own
        for entry in command.entries(shared):
            group = own.add_mutually_exclusive_group() if len(entry) > 1 else None
            for described in entry:
                own.add(described, group)
        own.set_defaults(**command.hidden)
    return parser


def drop_stdout() -> None:
    """Discard what stdout's buffer holds, since its reader is gone."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
