"""Writes finished log lines to a descriptor, some at once, and follows a file that is moved."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

_STDERR_FD = 2
# Lines tell who asked from where.
_MODE = 0o640
# For a named pipe without a reader: an error, rather than a wait.
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK


class LineWriter:
    """Appends lines to a file or to stderr.

    What is written with one call is not mixed with the lines of other processes. Lines that cannot
    be written are lost, counted, and told once others can.

    Args:
        path: a file, opened with the first line; None for stderr.
        line_of: makes a log line of a warning of the log itself.
    """

    def __init__(self, path: str | None, line_of: Callable[[str], str]) -> None:
        # The process may change its folder.
        self._path = None if path is None else Path(path).absolute()
        self._line_of = line_of
        self._fd = _STDERR_FD if path is None else -1
        self._lost, self._why_lost = 0, ""
        # Only the beginning of the last line is in the file.
        self._is_torn = False
        # Of the file, which another thread than the one that writes reopens.
        self._lock = threading.Lock()

    def write(self, lines: Sequence[str]) -> None:
        """Write lines with one call; for one thread at a time."""
        parts: list[bytes] = []
        if self._lost:
            told = f"{self._lost} log lines were lost: {self._why_lost}"
            parts.append(_encoded(self._line_of(told)))
        parts += map(_encoded, lines)
        written = 0
        try:
            self.reopen()
            if self._is_torn:
                parts[0] = b"\n" + parts[0]
            text = memoryview(b"".join(parts))
            while written < len(text):
                written += os.write(self._fd, text[written:])
        except OSError as error:
            if not self._lost and self._path is not None:
                # Where the log is a file, stderr can still say so.
                with suppress(OSError):
                    _write(_STDERR_FD, f"log lines are lost: {self._path}: {error.strerror}")
            self._why_lost = str(error.strerror)
            whole, of_next = _whole(parts, written)
            self._lost = len(parts) - whole if whole else self._lost + len(lines)
            self._is_torn = of_next > 0 or (self._is_torn and not whole)
        else:
            self._lost, self._is_torn = 0, False

    def write_in_fork(self, line: str) -> None:
        """Write a line in a process that was forked off, whatever threads did in the other one."""
        with suppress(OSError):
            _write(self._fd, line)

    def reopen(self) -> None:
        """Open the file unless it is open and where it was; for any thread.

        Raises:
            OSError: it cannot be opened; one that is open stays so.
        """
        if self._path is None:
            return
        with self._lock:
            with suppress(FileNotFoundError):
                if self._fd >= 0 and os.path.samestat(self._path.stat(), os.fstat(self._fd)):
                    return
            opened = os.open(self._path, _FLAGS, _MODE)
            self._is_torn = False
            if self._fd < 0:
                self._fd = opened
                return
            # In one step, since the other thread may be writing.
            os.dup2(opened, self._fd, inheritable=False)
            os.close(opened)


def _encoded(line: str) -> bytes:
    return f"{line}\n".encode("utf-8", "backslashreplace")


def _write(fd: int, line: str) -> None:
    left = memoryview(_encoded(line))
    while left:
        left = left[os.write(fd, left) :]


def _whole(parts: Sequence[bytes], written: int) -> tuple[int, int]:
    """How many parts are whole in so many bytes, and how many bytes there are of the next one."""
    for index, part in enumerate(parts):
        if written < len(part):
            return index, written
        written -= len(part)
    return len(parts), 0
