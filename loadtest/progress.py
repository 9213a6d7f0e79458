"""What a waiting user sees: one updating line on a terminal, else a line every few seconds."""

from __future__ import annotations

import sys
import time

_LINE_INTERVAL_S = 5.0


class Progress:
    """Shows the state of a long command on stderr."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._last_line_s = time.monotonic()
        self._line_open = False

    def update(self, text: str) -> None:
        """Show the state; without a terminal only if the last line is old."""
        if self._terminal:
            print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
            self._line_open = True
        elif time.monotonic() - self._last_line_s >= _LINE_INTERVAL_S:
            self.line(text)

    def line(self, text: str) -> None:
        """Show a line that stays."""
        self.end_line()
        print(text, file=sys.stderr, flush=True)
        self._last_line_s = time.monotonic()

    def end_line(self) -> None:
        """Clear the updating line, so that other output starts on a fresh one."""
        if self._line_open:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
            self._line_open = False


def minutes(seconds: float) -> str:
    """A duration as "m:ss"."""
    whole = max(0, round(seconds))
    return f"{whole // 60}:{whole % 60:02d}"
