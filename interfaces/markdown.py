"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


class Table(str):
    """A table in Markdown that also knows its cells, for pages that show them otherwise.

    Attributes:
        header: the headings.
        rows: the cells as text.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


def prose_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """A table for a page's source: nothing is padded, so that cells may be sentences."""
    texts = _texts(rows)
    lines = [_line(header), f"|{'---|' * len(header)}", *map(_line, texts)]
    return _made(header, texts, lines)


def aligned_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """A table that is also readable as text; all columns but the first are right-aligned."""
    texts = _texts(rows)
    shown = [[*map(_escaped, row)] for row in (header, *texts)]
    widths = [max(3, *map(len, column)) for column in zip(*shown, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = []
    for row in (shown[0], rule, *shown[1:]):
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append(f"| {' | '.join(cells)} |")
    return _made(header, texts, lines)


def _made(header: Sequence[str], texts: list[list[str]], lines: Sequence[str]) -> Table:
    made = Table("\n".join(lines) + "\n")
    made.header, made.rows = header, texts
    return made


def _texts(rows: Iterable[Sequence[object]]) -> list[list[str]]:
    return [[str(cell) for cell in row] for row in rows]


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(map(_escaped, cells))} |"


def _escaped(cell: str) -> str:
    # A bar would begin a cell, in code as well.
    return cell.replace("|", "\\|")
