"""Files that are made once and read again, each with its checksum in a file beside it.

They save time and nothing else. A damaged one is rebuilt, and where none can be written
serving goes on without.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path

from engine.cache.atomic_file import write_atomically
from engine.cache.bounded_file import UnreadableFileError, read_bounded
from engine.cache.folders import make_private_folder

_MAX_CHECKSUM_BYTES = 4096
_HEX_DIGITS = 64

_logger = logging.getLogger(__name__)


class UnusableFileError(Exception):
    """Why a kept file cannot be used again, as the end of a sentence that begins with its path."""


def checksum_file(path: Path) -> Path:
    """The file with the checksum of `path`, as `sha256sum` writes and checks it."""
    return path.with_name(f"{path.name}.sha256")


def read_kept(path: Path, max_bytes: int, *, foreign: bool = False) -> bytes:
    """The content that was written.

    Args:
        path: the file.
        max_bytes: its largest size.
        foreign: whether it may also come from another program, and have no checksum then.

    Raises:
        FileNotFoundError: there is no such file.
        UnusableFileError: it cannot be read, or it is not what was written.
    """
    try:
        content = read_bounded(path, max_bytes)
    except UnreadableFileError as error:
        if isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
            raise FileNotFoundError(str(path)) from None
        raise UnusableFileError(str(error)) from error
    try:
        checksum = read_bounded(checksum_file(path), _MAX_CHECKSUM_BYTES)[:_HEX_DIGITS]
    except UnreadableFileError as error:
        if foreign and isinstance(error.__cause__, FileNotFoundError):
            return content
        raise UnusableFileError(f"its checksum cannot be read: {error}") from error
    if hashlib.sha256(content).hexdigest().encode() != checksum:
        raise UnusableFileError("its content is damaged")
    return content


def write_kept(path: Path, content: bytes) -> None:
    """Keep `content`, for its owner only.

    A crash between the two files leaves a checksum that does not fit, or none.

    Raises:
        OSError: it cannot be written.
    """
    write_atomically(path, content)
    line = f"{hashlib.sha256(content).hexdigest()}  {path.name}\n"
    write_atomically(checksum_file(path), line.encode("utf-8", "surrogateescape"))


def kept_or_made(path: Path, max_bytes: int, make: Callable[[], bytes], doing: str) -> bytes:
    """The content of a kept file, or a new one, which then is kept there if that can be.

    Args:
        path: the file; its folder is made if it is missing.
        max_bytes: its largest size.
        make: makes the content.
        doing: what that is, for the log.
    """
    try:
        return read_kept(path, max_bytes)
    except FileNotFoundError:
        _logger.info("%s (once)", doing)
    except UnusableFileError as reason:
        _logger.warning("%s again: %s cannot be used: %s", doing, path, reason)
    content = make()
    keep(path, content)
    return content


def keep(path: Path, content: bytes) -> None:
    """Write a kept file, or log why that is not possible; its folder is made if it is missing."""
    try:
        make_private_folder(path.parent)
        write_kept(path, content)
    except OSError as error:
        _logger.warning(
            "cannot keep %s: %s; THRIFTPIPE_CACHE_DIR names another folder",
            path,
            error.strerror or error,
        )


def why_not_kept(path: Path, error: OSError) -> str | None:
    """Why `path` could not be written, for the log; None where a wrong path is to blame.

    A disk that is full, or may not be written, is no reason not to serve.
    """
    if isinstance(error, FileExistsError | FileNotFoundError | NotADirectoryError):
        return None
    return f"cannot keep {path}: {error.strerror or error}; serving goes on without it"
