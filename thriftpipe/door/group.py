"""The command line `thriftpipe`: a click group whose commands are made when they are used."""

from __future__ import annotations

import os
import platform
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click
from click.shell_completion import CompletionItem

from interfaces.command_line import INTERRUPTED
from interfaces.engines import PROVIDERS
from interfaces.extras import packages_of
from interfaces.names import closest_name_hint, unknown_name
from interfaces.options import Command, dashed
from thriftpipe import __version__
from thriftpipe.door import pages
from thriftpipe.door.commands import COMMANDS, FIRST_STEPS, DoorCommand, Example
from thriftpipe.door.mistakes import place_of, told
from thriftpipe.door.parameters import parameters, refuse_several, words
from thriftpipe.door.programs import LOADTEST, PIPELINE, Program, Tables

NAME = "thriftpipe"
COMPLETION_VARIABLE = "_THRIFTPIPE_COMPLETE"
_SETTINGS: dict[str, Any] = {"help_option_names": ["-h", "--help"], "token_normalize_func": dashed}


class ProgramCommand(click.Command):
    """One command of a program.

    Args:
        name: what the door calls it.
        program: what runs it.
        tables: of the program.
        command: its name in the tables.
        examples: for its help.
    """

    def __init__(
        self, name: str, program: Program, tables: Tables, command: str, examples: Sequence[Example]
    ) -> None:
        described: Command = tables.commands[command]
        self.entries = [*described.entries(tables.options)]
        self.described = described
        self.examples = examples
        self._program = program
        self._command = command
        super().__init__(
            name,
            # Such arguments are refused here, with the option that they belong to.
            context_settings={**_SETTINGS, "allow_extra_args": True},
            callback=self._run,
            params=parameters(self.entries),
            help=described.description or described.help,
            short_help=described.help,
        )

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """What is given, as click reads it; UsageError where it cannot be."""
        try:
            left = super().parse_args(ctx, args)
        except click.UsageError as error:
            # click's parser does not say of which command it is.
            error.ctx = error.ctx or ctx
            raise
        refuse_several(self.entries, ctx.params, ctx)
        if ctx.args and not ctx.resilient_parsing:
            word, names = ctx.args[0], {option.name for entry in self.entries for option in entry}
            raise click.UsageError(f"unexpected argument {word!r}{place_of(word, names)}", ctx)
        return left

    def get_help(self, ctx: click.Context) -> str:
        """Usage, examples and options."""
        return pages.command_page(ctx, self.help or "", self.examples, self.entries)

    def _run(self, **given: Any) -> int:
        line = [self._command, *words(self.entries, given)]
        with packages_of(*self._program.extras):
            return self._program.run(line, shlex.join([NAME, *click.get_current_context().obj]))


class LazyGroup(click.Group):
    """A group whose commands are made when they are used.

    Args:
        name: what the door calls it.
        about: what it is for.
        summaries: name to what a command is for.
        make: makes the command of a name.
        examples: for its help.
        **others: arguments of click's group.
    """

    def __init__(
        self,
        name: str,
        about: str,
        summaries: Mapping[str, str],
        make: Callable[[str], click.Command],
        examples: Sequence[Example] = (),
        **others: Any,
    ) -> None:
        super().__init__(
            name, context_settings=_SETTINGS, no_args_is_help=True, help=about, **others
        )
        self._summaries = summaries
        self._make = make
        self._examples = examples
        self._made: dict[str, click.Command] = {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Their names."""
        del ctx
        return [*self._summaries]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name; None if there is none."""
        del ctx
        names = {dashed(name): name for name in self._summaries}
        name = names.get(dashed(cmd_name))
        if name is None:
            return None
        if name not in self._made:
            self._made[name] = self._make(name)
        return self._made[name]

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the first word names; UsageError with the closest name."""
        is_mistake = self.get_command(ctx, args[0]) is None and not args[0].startswith("-")
        if is_mistake and not ctx.resilient_parsing:
            raise click.UsageError(self.unknown_command(args[0]), ctx)
        return super().resolve_command(ctx, args)

    def unknown_command(self, given: str) -> str:
        """What is told of a word that names no command."""
        return unknown_name("command", given, self._summaries)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The commands that begin so, without making them; of the options click's own."""
        if incomplete.startswith("-"):
            return click.Command.shell_complete(self, ctx, incomplete)
        return [
            CompletionItem(name, help=summary)
            for name, summary in self._summaries.items()
            if name.startswith(incomplete)
        ]

    def get_help(self, ctx: click.Context) -> str:
        """Usage, and the commands."""
        return self._page(ctx, {"Commands": self._summaries})

    def _page(self, ctx: click.Context, sections: Mapping[str, Mapping[str, str]]) -> str:
        return pages.group_page(ctx, self.help or "", sections, self._examples)


class Door(LazyGroup):
    """All commands."""

    def unknown_command(self, given: str) -> str:
        """The closest name; of a command that a program keeps to itself how to run it."""
        for program in (LOADTEST, PIPELINE):
            names = {dashed(name): name for name in program.tables().commands}
            if dashed(given) in names:
                name = names[dashed(given)]
                return f"{NAME} has no command {given!r}; use {program.spelling} {name}"
        hint = closest_name_hint(given, COMMANDS)
        if hint == ".":
            return unknown_name("command", given, COMMANDS)
        return f"unknown command {given!r}{hint}"

    def get_help(self, ctx: click.Context) -> str:
        """Usage, and the commands by what they are for."""
        sections: dict[str, dict[str, str]] = {}
        for name, command in COMMANDS.items():
            sections.setdefault(command.section, {})[name] = command.help
        return self._page(ctx, sections)


def _made(name: str) -> click.Command:
    door: DoorCommand = COMMANDS[name]
    with packages_of(*door.program.extras):
        tables = door.program.tables()
    if door.name:
        return ProgramCommand(name, door.program, tables, door.name, door.examples)
    return LazyGroup(
        name,
        door.help,
        {dashed(own): command.help for own, command in tables.commands.items()},
        lambda own: ProgramCommand(
            own, door.program, tables, own.replace("-", "_"), _examples(door, name, own)
        ),
        door.examples,
    )


def _examples(door: DoorCommand, name: str, own: str) -> list[Example]:
    return [it for it in door.examples if it.line.startswith(f"{NAME} {name} {own}")]


def door() -> Door:
    """The command line."""
    version = click.Option(
        ["-V", "--version"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_print_versions,
        help="Show the versions of thriftpipe, Python and the engines, and exit.",
    )
    summaries = {name: it.help for name, it in COMMANDS.items()}
    return Door(NAME, pages.ABOUT, summaries, _made, FIRST_STEPS, params=[version])


def _print_versions(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    del param
    if not value or ctx.resilient_parsing:
        return
    # It takes longer to load than click.
    from interfaces.versions import package_versions

    engines = package_versions(dict.fromkeys(provider.package for provider in PROVIDERS))
    others = ", ".join(f"{package} {version}" for package, version in engines.items())
    click.echo(f"{NAME} {__version__} (Python {platform.python_version()}, {others})")
    ctx.exit()


def run(arguments: Sequence[str]) -> int:
    """Run a command line.

    Returns:
        The exit code: 2 for a wrong command line, else the command's own.
    """
    if os.environ.get("COLUMNS") == "0":
        # A width that is not known. For rich it is one of nothing, into which it writes nothing.
        del os.environ["COLUMNS"]
    given = [*arguments]
    try:
        code = door().main(
            given, NAME, complete_var=COMPLETION_VARIABLE, standalone_mode=False, obj=given
        )
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return 2
    except click.UsageError as error:
        pages.tell_mistake(told(error), error.ctx.command_path if error.ctx else NAME)
        return 2
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    return code if isinstance(code, int) else 0
