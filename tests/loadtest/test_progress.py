"""What a long command shows: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

import pytest

from loadtest import progress
from loadtest.progress import Progress


def test_a_terminal_has_one_line_that_changes_and_is_gone_in_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours, theirs = os.openpty()
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("COLUMNS", "100")
        shown = Progress()
        shown.update("pipeline: 100.0 images/s, TP99 9.00 ms", 0.5)
        shown.update("pipeline: [bold]120.0[/] images/s", 0.75)
        shown.line("a line that stays")
        shown.end_line()
    written = b""
    # A terminal whose other end is closed ends by an error, and not at once.
    with suppress(OSError):
        while data := os.read(ours, 4096):
            written += data
    os.close(ours)
    text = written.decode()
    assert "100.0 images/s, TP99 9.00 ms" in text
    assert "[bold]120.0[/] images/s" in text  # text is no markup
    assert "\x1b[2K" in text  # the line is erased before the next one
    assert text.rstrip().endswith("a line that stays")
    assert "\x1b[?25h" in text  # the cursor is back


def test_without_a_terminal_there_is_a_plain_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = Progress()
    shown.update("too soon", 0.1)
    monkeypatch.setattr(progress, "_LINE_INTERVAL_S", 0.0)
    shown.update("120.0 images/s, TP99 9.00 ms", 0.2)
    assert capsys.readouterr().err == "120.0 images/s, TP99 9.00 ms\n"
