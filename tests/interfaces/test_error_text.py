from __future__ import annotations

import pytest

from interfaces.error_text import first_line, in_one_line, what_it_says


class MuteError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    ("error", "line", "with_kind", "words"),
    [
        (ValueError(" a\nb "), "a", "ValueError: a", "a\nb"),
        (MemoryError(), "MemoryError", "MemoryError", "MemoryError"),
        (AssertionError("\n"), "AssertionError", "AssertionError", "AssertionError"),
        (KeyError("x"), "'x'", "KeyError: 'x'", "KeyError: 'x'"),
        (SystemExit(3), "3", "SystemExit: 3", "SystemExit: 3"),
        (MuteError(), "MuteError", "MuteError", "MuteError"),
    ],
)
def test_an_error_as_text(error: BaseException, line: str, with_kind: str, words: str) -> None:
    assert first_line(error) == line
    assert in_one_line(error) == with_kind
    assert what_it_says(error) == words
