"""What a waiting user sees: a bar that moves on a terminal, else a line now and then."""

from __future__ import annotations

import sys
import time
from typing import Any

_LINE_INTERVAL_S = 5.0


class Progress:
    """Shows the state of a long command on stderr."""

    def __init__(self) -> None:
        self._bar = _Bar() if sys.stderr.isatty() else None
        self._last_line_s = time.monotonic()

    def update(self, text: str, share: float | None = None) -> None:
        """Show the state; without a terminal only if the last line is old.

        Args:
            text: what is done just now.
            share: how much of it is done, 0 to 1; None where nothing can be said.
        """
        if self._bar is not None:
            self._bar.show(text, share)
        elif time.monotonic() - self._last_line_s >= _LINE_INTERVAL_S:
            self.line(text)

    def line(self, text: str) -> None:
        """Show a line that stays."""
        self.end_line()
        print(text, file=sys.stderr, flush=True)
        self._last_line_s = time.monotonic()

    def end_line(self) -> None:
        """Clear the updating line, so that other output starts on a fresh one."""
        if self._bar is not None:
            self._bar.clear()


class _Bar:
    """One updating line of a terminal."""

    def __init__(self) -> None:
        # Only here: a program whose output is no terminal has no use for it.
        from rich.console import Console
        from rich.progress import BarColumn, SpinnerColumn, TextColumn
        from rich.progress import Progress as RichProgress
        from rich.table import Column

        text = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True))
        self._rich: Any = RichProgress(
            SpinnerColumn(),
            BarColumn(bar_width=16),
            text,
            console=Console(stderr=True),
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task: Any = None

    def show(self, text: str, share: float | None) -> None:
        if self._task is None:
            self._task = self._rich.add_task("", total=1.0)
            self._rich.start()
        self._rich.update(self._task, description=text, completed=share or 0.0)
        self._rich.refresh()

    def clear(self) -> None:
        if self._task is not None:
            self._rich.stop()
            self._rich.remove_task(self._task)
            self._task = None


def minutes(seconds: float) -> str:
    """A duration as "m:ss"."""
    whole = max(0, round(seconds))
    return f"{whole // 60}:{whole % 60:02d}"
