"""What the commands write, and how wide."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Sequence

_WIDTH = 100
_NARROWEST = 12


def say(text: str) -> None:
    """Write a line or several to stdout; what its encoding lacks is escaped."""
    encoding = sys.stdout.encoding
    sys.stdout.write(f"{text.encode(encoding, 'backslashreplace').decode(encoding)}\n")
    # Line by line, so that a result is seen while the next image is still at work.
    sys.stdout.flush()


def complain(text: str) -> None:
    """Write one line to stderr."""
    sys.stderr.write(f"{one_line(text)}\n")
    sys.stderr.flush()


def terminal_width() -> int:
    """Columns of the terminal, or of $COLUMNS; 100 where there is none."""
    return shutil.get_terminal_size((_WIDTH, 24)).columns


def one_line(message: str) -> str:
    r"""A message in one line; a caret under a mistake becomes the mistake's column.

    >>> one_line("expected ']':\n    S[A\n       ^")
    "expected ']': S[A (column 4)"
    """
    lines = message.splitlines()
    if len(lines) > 2 and lines[-1].strip() == "^":
        column = len(lines[-1]) - (len(lines[-2]) - len(lines[-2].lstrip()))
        lines[-1] = f"(column {column})"
    return " ".join(" ".join(lines).split())


def table(header: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> str:
    """Columns of text; the widest column is wrapped where all together are wider than `width`.

    Args:
        header: a title a column.
        rows: as many cells each.
        width: columns of the terminal.
    """
    cells = [header, *rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    widest = widths.index(max(widths))
    others = sum(widths) - widths[widest] + 2 * (len(widths) - 1)
    widths[widest] = max(_NARROWEST, min(widths[widest], width - others))
    lines = []
    for row in cells:
        wrapped = [
            textwrap.wrap(cell, size) or [""] for cell, size in zip(row, widths, strict=True)
        ]
        for number in range(max(map(len, wrapped))):
            parts = [
                (cell[number] if number < len(cell) else "").ljust(size)
                for cell, size in zip(wrapped, widths, strict=True)
            ]
            lines.append("  ".join(parts).rstrip())
    return "\n".join(lines)
