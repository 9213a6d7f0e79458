"""The terminal, as the door's own commands write to it."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

# Longer lines are hard to read.
WIDEST = 110
NAME = "cyan"
FAINT = "dim"
HEADING = "bold"
# Between columns, and of one with sentences.
_GAP, _READABLE = 2, 20


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
    made = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style=FAINT)
    for title in titles:
        made.add_column(title)
    return made


def print_rows(screen: Console, titles: Sequence[str], rows: Sequence[Sequence[Text]]) -> None:
    """Print rows as a table, or where that is too wide each as a name with a line for each cell.

    Args:
        screen: the terminal.
        titles: of the columns, of which the first has the names.
        rows: as many cells each.
    """
    widths = [
        max(
            len(title),
            *(min(cell.cell_len, _READABLE) for cell in cells),
            *(cell_len(word) for cell in cells for word in cell.plain.split()),
        )
        for title, cells in zip(titles, zip(*rows, strict=True), strict=True)
    ]
    if sum(widths) + _GAP * (len(widths) - 1) <= screen.width:
        whole = table(*titles)
        for row in rows:
            whole.add_row(*row)
        screen.print(whole)
        return
    for name, *cells in rows:
        screen.print(name)
        lines = Table.grid(padding=(0, _GAP, 0, 0))
        lines.add_column(style=FAINT, no_wrap=True)
        lines.add_column()
        for title, cell in zip(titles[1:], cells, strict=True):
            if cell:
                lines.add_row(f"  {title}", cell)
        screen.print(lines)
