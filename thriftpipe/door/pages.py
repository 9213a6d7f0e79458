"""What the door itself writes: help pages, and mistakes in one line."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator, Mapping, Sequence

import click
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from interfaces.options import REQUIRED, Option
from thriftpipe.door.commands import Example
from thriftpipe.door.parameters import Entries, metavar, spelling
from thriftpipe.screen import FAINT, HEADING, NAME, WIDEST

ABOUT = (
    "Image classification behind Thrift, and the comparison that says which way of serving it is "
    "the faster one, with your model, on your machine."
)
# Of the left column; a longer name has a line of its own.
_NAMES = 30
_INDENT = 2
_VALUE = "yellow"


def tell_mistake(message: str, command: str) -> None:
    """Write to stderr what is wrong with a command line, in one line."""
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    console.print(
        Text.assemble(
            ("error:", "bold red"),
            f" {' '.join(message.split())} ",
            (f"(see {command} --help)", FAINT),
        )
    )


def group_page(
    ctx: click.Context,
    about: str,
    sections: Mapping[str, Mapping[str, str]],
    examples: Sequence[Example],
) -> str:
    """The help of a group.

    Args:
        ctx: of the group.
        about: what it is for.
        sections: title to the commands under it; name to what a command is for.
        examples: the most common first.
    """
    width = max(len(name) for commands in sections.values() for name in commands)
    parts: list[RenderableType] = [
        _usage(ctx, "COMMAND [OPTIONS]"),
        Text(),
        _indented(Text(sentence(about))),
    ]
    parts += _examples(examples)
    for title, commands in sections.items():
        grid = _grid(width)
        for name, summary in commands.items():
            grid.add_row(Text(name, NAME), summary)
        parts += [Text(), Text(title, HEADING), _indented(grid)]
    options = [param for param in ctx.command.get_params(ctx) if isinstance(param, click.Option)]
    grid = _grid(max(len(_written(option)) for option in options))
    for option in options:
        grid.add_row(Text(_written(option), NAME), option.help or "")
    more = Text.assemble((f"{ctx.command_path} COMMAND --help", NAME), " shows its options.")
    return _rendered([*parts, Text(), Text("Options", HEADING), _indented(grid), Text(), more])


def command_page(
    ctx: click.Context, about: str, examples: Sequence[Example], entries: Entries
) -> str:
    """The help of a command.

    Args:
        ctx: of the command.
        about: what it is for.
        examples: the most common first.
        entries: its options.
    """
    described = [option for entry in entries for option in entry]
    places = [option for option in described if option.is_positional]
    words = " ".join([*map(_place, places), "[OPTIONS]"])
    parts: list[RenderableType] = [_usage(ctx, words), Text(), _indented(Text(sentence(about)))]
    parts += _examples(examples)
    if places:
        parts += [Text(), Text("Arguments", HEADING), *map(_option_lines, places)]
    for title, options in _by_group(described).items():
        parts += [Text(), Text(title, HEADING), *map(_option_lines, options)]
    return _rendered(parts)


def page_width() -> int:
    """Columns of a page: those of the terminal, as far as lines stay readable."""
    return min(Console().width, WIDEST)


def _rendered(parts: Sequence[RenderableType]) -> str:
    console = Console(
        file=io.StringIO(),
        force_terminal=sys.stdout.isatty(),
        width=page_width(),
        highlight=False,
        markup=False,
    )
    with console.capture() as capture:
        for part in parts:
            console.print(part)
    return "\n".join(line.rstrip() for line in capture.get().rstrip("\n").split("\n"))


def sentence(text: str) -> str:
    """A text with a capital at its beginning and a full stop at its end."""
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith('.') else '.'}"


def _usage(ctx: click.Context, words: str) -> Text:
    return Text.assemble(("Usage: ", HEADING), (ctx.command_path, NAME), f" {words}")


def _indented(content: RenderableType) -> Padding:
    return Padding(content, (0, 0, 0, _INDENT))


def _grid(names: int) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(min_width=names, no_wrap=True)
    grid.add_column()
    return grid


def _written(option: click.Option) -> str:
    return ", ".join(sorted(option.opts, key=len))


def _examples(examples: Sequence[Example]) -> Iterator[RenderableType]:
    """A line each, with its purpose beside it where all fit, else above it."""
    if not examples:
        return
    yield Text()
    yield Text("Examples", HEADING)
    widest = max(len(example.line) for example in examples)
    room = page_width() - _INDENT - widest - 2
    if all(len(example.purpose) <= room for example in examples):
        grid = _grid(widest)
        for example in examples:
            grid.add_row(Text(example.line, NAME), Text(example.purpose, FAINT))
        yield _indented(grid)
        return
    for example in examples:
        if example.purpose:
            yield _indented(Text(f"# {example.purpose}", FAINT))
        yield _indented(Text(example.line, NAME, no_wrap=True, overflow="ignore"))


def _place(option: Option) -> str:
    word = spelling(option) + ("..." if option.is_repeated else "")
    return word if option.default in (None, REQUIRED) else f"[{word}]"


def _by_group(described: Sequence[Option]) -> dict[str, list[Option]]:
    """The options with names, by the title that they stand under; those without come first."""
    groups: dict[str, list[Option]] = {}
    for option in sorted(described, key=lambda it: bool(it.group)):
        if not option.is_positional:
            title = f"Options of the {option.group}" if option.group else "Options"
            groups.setdefault(title, []).append(option)
    return groups


def _option_lines(option: Option) -> RenderableType:
    short = f"-{option.short}, " if option.short else ""
    name = Text(f"{short}{spelling(option)}", NAME)
    if not option.is_positional and (value := metavar(option)):
        name.append(f" {value}", _VALUE)
    if option.is_repeated:
        name.append("...", _VALUE)
    text = Text(option.text.replace("`", ""))
    if option.default is REQUIRED and not option.is_positional:
        text.append(" (required)", "bold")
    elif default := option.shown_default:
        text.append(f" (default: {default})", FAINT)
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(min_width=_NAMES, max_width=_NAMES, no_wrap=True)
    grid.add_column()
    if len(name) <= _NAMES:
        grid.add_row(name, text)
        return _indented(grid)
    grid.add_row("", text)
    both = Table.grid()
    both.add_row(name)
    both.add_row(grid)
    return _indented(both)
