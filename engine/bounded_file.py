"""Reading a file whole only after a look at what it is and how large it is."""

from __future__ import annotations

import os
import stat
from pathlib import Path


class UnreadableFileError(Exception):
    """Why a file is not read, as the end of a sentence that begins with its path."""


def check_file(path: Path, max_bytes: int) -> None:
    """See whether a file may be read whole.

    Args:
        path: the file; links are followed.
        max_bytes: its largest size.

    Raises:
        UnreadableFileError: it is not there, is no regular file, or is larger.
    """
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        raise UnreadableFileError(_reason(error)) from error
    _check(status, max_bytes)


def read_bounded(path: Path, max_bytes: int) -> bytes:
    """The content of a regular file of at most `max_bytes`.

    Raises:
        UnreadableFileError: it cannot be read, is no regular file, or is larger.
    """
    check_file(path, max_bytes)
    try:
        # Another file may stand there by now; opening a named pipe would wait for its writer.
        with open(path, "rb", opener=_open_without_waiting) as file:
            _check(os.fstat(file.fileno()), max_bytes)
            # It may grow meanwhile.
            content = file.read(max_bytes + 1)
    except (OSError, ValueError) as error:
        raise UnreadableFileError(_reason(error)) from error
    if len(content) > max_bytes:
        raise _too_large(len(content), max_bytes)
    return content


def _open_without_waiting(name: str, flags: int) -> int:
    return os.open(name, flags | os.O_NONBLOCK)


def _check(status: os.stat_result, max_bytes: int) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise UnreadableFileError("it is a folder, a file is needed")
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableFileError("it is not a regular file")
    if status.st_size > max_bytes:
        raise _too_large(status.st_size, max_bytes)


def _too_large(size_bytes: int, max_bytes: int) -> UnreadableFileError:
    return UnreadableFileError(f"it has {size_bytes} bytes, at most {max_bytes} are read")


def _reason(error: OSError | ValueError) -> str:
    return getattr(error, "strerror", None) or str(error)
