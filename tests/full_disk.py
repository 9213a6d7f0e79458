"""A folder on a disk that has no room left."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOM_BYTES = 64 * 1024


@contextmanager
def full_disk(folder: Path, *options: str) -> Iterator[Path]:
    """A file system of 64 KiB in memory, mounted for as long as the test lasts.

    Args:
        folder: where; it is made.
        options: more options of mount, such as "ro".
    """
    folder.mkdir()
    size = ",".join((f"size={ROOM_BYTES}", *options))
    command = ["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("mounting a small file system needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
