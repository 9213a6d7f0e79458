"""A folder for the processes of one server, that is gone when the server is."""

from __future__ import annotations

import fcntl
import logging
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_log = logging.getLogger(__name__)

_PREFIX = "thriftpipe-server-"
# The server holds a lock on it for life, which the kernel takes back however the server ends.
_OWNER = "owner.lock"
# All that is ever made in the folder; nothing else is removed with it.
_SUFFIXES = (".lock", ".sock", ".json")


class SharedFolder:
    """A new folder in the temporary directory, which only this user can enter.

    Making one removes those of servers that were killed.

    Attributes:
        path: where it is.
    """

    def __init__(self) -> None:
        remove_leftovers()
        while True:
            self.path = Path(tempfile.mkdtemp(prefix=_PREFIX))
            self._owner = os.open(self.path / _OWNER, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            fcntl.flock(self._owner, fcntl.LOCK_EX)
            if os.fstat(self._owner).st_nlink:
                return
            # Another server that starts was faster than the lock, and took it for a leftover.
            os.close(self._owner)

    def process_ids(self) -> set[int]:
        """The ids of processes that work for all workers.

        The worker that starts one locks NAME.lock and writes the id into that file.
        """
        found = set()
        with suppress(OSError):
            for path in self.path.glob("*.lock"):
                if text := path.read_text():
                    found.add(int(text))
        return found

    def close(self) -> None:
        """Remove it; safe to repeat, and in several threads."""
        owner, self._owner = self._owner, -1
        if owner >= 0:
            _remove(self.path)
            os.close(owner)


def remove_leftovers() -> None:
    """Remove the folders of this user's servers that ended without doing so."""
    temporary = tempfile.gettempdir()
    try:
        with os.scandir(temporary) as entries:
            found = [Path(entry.path) for entry in entries if entry.name.startswith(_PREFIX)]
    except OSError as error:
        _log.warning(
            "cannot look into TMPDIR = %s for folders that killed servers have left there: %s",
            temporary,
            error.strerror,
        )
        return
    for path in found:
        # No folder, without such a file, or its server is there.
        with (
            suppress(OSError),
            _opened(path, os.O_RDONLY | os.O_DIRECTORY) as folder,
            _opened(_OWNER, os.O_RDWR, folder) as owner,
        ):
            if os.fstat(folder).st_uid == os.geteuid():
                fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(path)


def open_owner(folder: Path) -> int:
    """A descriptor for `when_owner_ends`, to hand to another process."""
    return os.open(folder / _OWNER, os.O_RDWR | os.O_NOFOLLOW)


def when_owner_ends(owner: int, call: Callable[[], None]) -> None:
    """Run `call` in a thread once the server that made the folder has ended, or removed it."""

    def wait() -> None:
        fcntl.flock(owner, fcntl.LOCK_SH)
        call()

    threading.Thread(target=wait, name="watch-server", daemon=True).start()


@contextmanager
def short_path(folder: Path, name: str) -> Iterator[str]:
    """A path to a file of the folder that fits into the address of a Unix socket.

    That has room for 107 bytes, which a temporary directory's name may fill.
    """
    with _opened(folder, os.O_PATH | os.O_DIRECTORY) as fd:
        yield f"/proc/self/fd/{fd}/{name}"


@contextmanager
def _opened(path: Path | str, flags: int, folder: int | None = None) -> Iterator[int]:
    fd = os.open(path, flags | os.O_NOFOLLOW, dir_fd=folder)
    try:
        yield fd
    finally:
        os.close(fd)


def _remove(path: Path) -> None:
    """Remove what a server makes, its lock last, and follow no link."""
    with suppress(OSError), _opened(path, os.O_RDONLY | os.O_DIRECTORY) as folder:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.name.endswith(_SUFFIXES)]
        for name in sorted(names, key=_OWNER.__eq__):
            os.unlink(name, dir_fd=folder)
        path.rmdir()
