"""Where what is made once is kept."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

_OWNER_ONLY = 0o700


def cache_folder() -> Path:
    """The cache folder: $THRIFTPIPE_CACHE_DIR, or thriftpipe in the user's cache."""
    if own := os.environ.get("THRIFTPIPE_CACHE_DIR"):
        return Path(own)
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared, "thriftpipe")
    return Path.home() / ".cache" / "thriftpipe"


def spare_folder() -> Path:
    """The folder that takes its place where it cannot be written: this user's, for temporaries."""
    return Path(tempfile.gettempdir(), f"thriftpipe_cache_{os.geteuid()}")


def make_private_folder(path: Path) -> None:
    """Make a folder that only its owner may enter, whatever the umask; so are missing parents.

    A folder that is there stays as it is.

    Raises:
        OSError: it cannot be made.
    """
    for folder in [*reversed(path.parents), path]:
        if not folder.is_dir():
            # Another process may make it at the same time.
            folder.mkdir(_OWNER_ONLY, exist_ok=True)
            folder.chmod(_OWNER_ONLY)


def check_private(folder: Path) -> None:
    """Raise PermissionError if others could put files into a folder that is there already."""
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise PermissionError(None, f"others than its user may write to {folder}")
