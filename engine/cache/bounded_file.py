"""Reading a file whole only after a look at what it is and how large it is."""

from __future__ import annotations

import os
import stat
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from interfaces.error_text import printable

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
# Of a folder with more the closest name is not looked for any further.
_MOST_NAMES = 10_000


class UnreadableFileError(Exception):
    """Why a file is not read, as the end of a sentence that begins with its path.

    Its cause is the OSError, where there was one.
    """


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


def open_regular(path: Path, max_bytes: int | None = None) -> BinaryIO:
    """A regular file, opened without blocking; of at most `max_bytes`.

    Raises:
        UnreadableFileError: it cannot be opened, is no regular file, or is larger.
    """
    try:
        file: BinaryIO = open(path, "rb", opener=_open_without_waiting)  # noqa: SIM115 (returned)
    except (OSError, ValueError) as error:
        raise UnreadableFileError(_reason(error)) from error
    try:
        _check(os.fstat(file.fileno()), max_bytes)
    except BaseException:
        file.close()
        raise
    return file


def read_bounded(path: Path, max_bytes: int) -> bytes:
    """The content of a regular file of at most `max_bytes`.

    Raises:
        UnreadableFileError: it cannot be read, is no regular file, or is larger.
    """
    # A look first: merely opening a device may have effects.
    check_file(path, max_bytes)
    with open_regular(path, max_bytes) as file:
        try:
            # It may grow meanwhile.
            content = file.read(max_bytes + 1)
        except OSError as error:
            raise UnreadableFileError(_reason(error)) from error
    if len(content) > max_bytes:
        raise _too_large(len(content), max_bytes)
    return content


def why_no_file(path: Path) -> str:
    """Why there is no regular file at `path`, with the closest name; "" where there is one."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISREG(mode):
            if os.access(path, os.R_OK):
                return ""
            raise PermissionError(None, "Permission denied")
        return f"{shown(path)} is {kind_of(mode)}, a file is needed"
    except (FileNotFoundError, NotADirectoryError):
        return _nothing_there(path)
    except (OSError, ValueError) as error:
        return f"{shown(path)} cannot be read: {_reason(error)}"


def why_no_folder(path: Path) -> str:
    """Why there is no folder at `path`; "" where there is one."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return f"there is no folder {shown(path)}"
    except (OSError, ValueError) as error:
        return f"{shown(path)} cannot be read: {_reason(error)}"
    return "" if stat.S_ISDIR(mode) else f"{shown(path)} is {kind_of(mode)}, a folder is needed"


def kind_of(mode: int) -> str:
    """What an inode's mode stands for, in words."""
    return next((kind for is_kind, kind in _KINDS if is_kind(mode)), "a file")


def shown(path: Path) -> str:
    """A path for a message of one line, escaped where it could not be printed."""
    return printable(str(path))


def _nothing_there(path: Path) -> str:
    if path.is_symlink():
        return f"{shown(path)} is a link to {shown(path.readlink())}, which is not there"
    if reason := why_no_folder(path.parent):
        return reason
    try:
        names = [entry.name for entry in islice(path.parent.iterdir(), _MOST_NAMES)]
    except OSError:
        names = []
    closest = get_close_matches(path.name, names, n=1)
    hint = f"; did you mean {shown(path.with_name(closest[0]))}?" if closest else ""
    return f"there is no file {shown(path)}{hint}"


def _open_without_waiting(name: str, flags: int) -> int:
    return os.open(name, flags | os.O_NONBLOCK)


def _check(status: os.stat_result, max_bytes: int | None) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableFileError(f"it is {kind_of(status.st_mode)}, a file is needed")
    if max_bytes is not None and status.st_size > max_bytes:
        raise _too_large(status.st_size, max_bytes)


def _too_large(size_bytes: int, max_bytes: int) -> UnreadableFileError:
    return UnreadableFileError(f"it has {size_bytes} bytes, at most {max_bytes} are read")


def _reason(error: OSError | ValueError) -> str:
    if type(error) is ValueError:
        # Each version of Python has words of its own for it.
        return "a path holds no NUL"
    return getattr(error, "strerror", None) or str(error)
