"""The reference of all commands, as Markdown: `python -m thriftpipe.door.reference [FILE]`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from interfaces.markdown import prose_table
from interfaces.options import REQUIRED, Option
from thriftpipe.door.commands import COMMANDS, DoorCommand, Example
from thriftpipe.door.group import NAME
from thriftpipe.door.pages import sentence
from thriftpipe.door.parameters import metavar, spelling

FILE = Path("docs/reference-commands.md")
_HEAD = """# Reference of commands

Written by `python -m thriftpipe.door.reference` from the tables that the programs read their own
command lines with; do not edit it. Names of options may be written with dashes or underscores.
"""


def reference() -> str:
    """The page."""
    parts = [_HEAD]
    for name, command in COMMANDS.items():
        parts += _sections(name, command)
    return "\n".join(parts)


def _sections(name: str, command: DoorCommand) -> Iterator[str]:
    tables = command.program.tables()
    own_names = [command.name] if command.name else [*tables.commands]
    yield f"## {NAME} {name}\n"
    if not command.name:
        yield f"{sentence(command.help)}\n"
        yield _examples(command.examples)
    for own in own_names:
        described = tables.commands[own]
        entries = [*described.entries(tables.options)]
        options = [option for entry in entries for option in entry]
        if not command.name:
            yield f"### {NAME} {name} {own}\n"
        words = " ".join(_place(option) for option in options if option.is_positional)
        called = " ".join(filter(None, [NAME, name, "" if command.name else own, words]))
        yield f"`{called} [OPTIONS]`\n"
        yield f"{sentence(described.description or described.help)}\n"
        if command.name:
            yield _examples(command.examples)
        if options:
            yield _table(options)
        for entry in entries:
            if len(entry) > 1:
                names = " and ".join(f"`{spelling(option)}`" for option in entry)
                yield f"{names} exclude each other.\n"


def _examples(examples: Sequence[Example]) -> str:
    lines = [
        f"{example.line}   # {example.purpose}" if example.purpose else example.line
        for example in examples
    ]
    return "\n".join(["```sh", *lines, "```", ""])


def _place(option: Option) -> str:
    return spelling(option) + ("..." if option.is_repeated else "")


def _table(options: list[Option]) -> str:
    rows = []
    for option in options:
        name = spelling(option)
        if not option.is_positional and (value := metavar(option)):
            name += f" {value}"
        default = "required" if option.default is REQUIRED else option.shown_default
        rows.append((f"`{name}`", option.text, default))
    return prose_table(["option", "what it is", "default"], rows)


if __name__ == "__main__":
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else FILE
    path.write_text(reference(), encoding="utf-8")
