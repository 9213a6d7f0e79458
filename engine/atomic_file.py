"""Writing a file so that no reader ever sees half of it."""

import os
import tempfile
from pathlib import Path

_OWNER_ONLY = 0o700


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


def write_atomically(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Put `content` into `path`, by default for its owner only.

    Several processes may write the same path at once: the last one wins, and each reader gets one
    of the contents as a whole.

    Raises:
        OSError: the folder does not exist or cannot be written.
    """
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(handle, mode)
            file.write(content)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
