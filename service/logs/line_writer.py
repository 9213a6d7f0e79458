"""Writes finished log lines to a descriptor, some at once, and follows a file that is moved."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_STDERR_FD = 2
# More are written in parts, so that lines are soon there.
_MOST_LINES = 100
# Lines tell who asked from where.
_MODE = 0o640
# For a named pipe without a reader: an error, rather than a wait.
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK


class LineWriter(logging.Handler):
    """Appends the messages of records; for one thread at a time.

    What is written with one call is not mixed with the lines of other processes. Lines that cannot
    be written are lost, counted, and told once others can.

    Args:
        path: a file, opened with the first line; None for stderr.
        has_more: whether the next record comes at once, so that its line is written together with
            this one's.
    """

    def __init__(self, path: str | None, has_more: Callable[[], bool]) -> None:
        super().__init__()
        # The process may change its folder.
        self._path = None if path is None else Path(path).absolute()
        self._has_more = has_more
        self._lines: list[str] = []
        self._lost, self._why_lost = 0, ""
        self._fd = _STDERR_FD if path is None else -1

    def emit(self, record: logging.LogRecord) -> None:
        """Write the message, unless it is to wait for the next one."""
        self._lines.append(record.getMessage())
        if len(self._lines) >= _MOST_LINES or not self._has_more():
            self.flush()

    def write_alone(self, record: logging.LogRecord) -> None:
        """Write one message at once, in a forked process: what waits is not its own."""
        with suppress(OSError):
            _write(self._fd, f"{record.getMessage()}\n")

    def flush(self) -> None:
        """Write what waits."""
        lines, self._lines = self._lines, []
        if not lines:
            return
        told = f"{self._lost} log lines were lost: {self._why_lost}"
        text = "".join(f"{line}\n" for line in ([told] if self._lost else []) + lines)
        try:
            self.reopen()
            _write(self._fd, text)
        except OSError as error:
            if not self._lost and self._path is not None:
                # The writer of a file has one more way to be heard.
                with suppress(OSError):
                    _write(_STDERR_FD, f"log lines are lost: {self._path}: {error.strerror}\n")
            self._lost += len(lines)
            self._why_lost = str(error.strerror)
        else:
            self._lost = 0

    def reopen(self) -> None:
        """Open the file unless it is open and where it was.

        Raises:
            OSError: it cannot be opened; one that is open stays so.
        """
        if self._path is None:
            return
        with suppress(FileNotFoundError):
            if self._fd >= 0 and os.path.samestat(self._path.stat(), os.fstat(self._fd)):
                return
        opened = os.open(self._path, _FLAGS, _MODE)
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = opened


def _write(fd: int, text: str) -> None:
    left = memoryview(text.encode("utf-8", "backslashreplace"))
    while left:
        left = left[os.write(fd, left) :]
