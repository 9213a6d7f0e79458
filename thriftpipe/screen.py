"""The terminal, as the door's own commands write to it."""

from __future__ import annotations

import io
import sys

from rich.console import Console
from rich.table import Table
from rich.text import Text

# Longer lines are hard to read.
WIDEST = 110
NAME = "cyan"
FAINT = "dim"
HEADING = "bold"


def console(*, stderr: bool = False) -> Console:
    """A console that honours NO_COLOR, pipes and the terminal's width, as far as lines are read.

    What the stream's encoding lacks, such as a letter of a label, is escaped.
    """
    stream = sys.stderr if stderr else sys.stdout
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")
    screen = Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    screen.width = min(screen.width, WIDEST)
    return screen


def heading(screen: Console, title: str) -> None:
    """Write a title, with an empty line above it."""
    screen.print()
    screen.print(Text(title, HEADING))


def table(*titles: str) -> Table:
    """A table without lines, whose cells may be wrapped."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style=FAINT)
    for title in titles:
        made.add_column(title)
    return made
