"""Tables in Markdown, read back by a parser of it."""

from __future__ import annotations

import pytest
from markdown_it import MarkdownIt

from interfaces.markdown import aligned_table, prose_table

HEADER = ["what", "N|M", ""]
ROWS = [["`--size N|HxW`", 1, "a sentence."], ["b", 22.5, ""]]


@pytest.mark.parametrize("made", [prose_table(HEADER, ROWS), aligned_table(HEADER, iter(ROWS))])
def test_the_cells_are_what_was_given(made: str) -> None:
    tokens = MarkdownIt("commonmark").enable("table").parse(made)
    cells = [token.content for token in tokens if token.type == "inline"]
    assert cells == [*HEADER, "`--size N|HxW`", "1", "a sentence.", "b", "22.5", ""]


def test_numbers_are_right_aligned_and_lines_equally_wide() -> None:
    made = aligned_table(HEADER, ROWS)
    assert made == (
        "| what            | N\\|M |             |\n"
        "| --------------- | ---: | ----------: |\n"
        "| `--size N\\|HxW` |    1 | a sentence. |\n"
        "| b               | 22.5 |             |\n"
    )


def test_a_page_that_shows_the_cells_otherwise_has_them_as_they_are() -> None:
    made = aligned_table(HEADER, ROWS)
    assert made.header == HEADER
    assert made.rows == [["`--size N|HxW`", "1", "a sentence."], ["b", "22.5", ""]]


def test_a_table_may_have_no_rows() -> None:
    assert aligned_table(["what", "n"], []) == "| what |   n |\n| ---- | --: |\n"
    assert prose_table(["what", "n"], []) == "| what | n |\n|---|---|\n"
