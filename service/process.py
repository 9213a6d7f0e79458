"""What every process of a server does alike: log, tell why it failed, leave."""

from __future__ import annotations

import logging
import os
import sys
from typing import NoReturn

from service.handler import ConfigurationError


def log_to_stderr(level: str, speaker: str = "") -> None:
    """Write log lines to stderr.

    Args:
        level: name of the least severe level that is written.
        speaker: stands in front of each logger's name, to tell several processes apart.
    """
    logging.basicConfig(
        stream=sys.stderr,
        level=level.upper(),
        format=f"%(asctime)s %(levelname)s {speaker}%(name)s: %(message)s",
    )


def error_line(error: ConfigurationError | OSError) -> tuple[str, int]:
    """What ends a server, as one line for the user and as its exit code."""
    if isinstance(error, ConfigurationError):
        return " ".join(str(error).split()), 2
    text = error.strerror or str(error)
    if error.filename:
        text = f"{error.filename}: {text}"
    return " ".join(text.split()), 1


def leave(code: int) -> NoReturn:
    """End this process, in which everything is closed by now.

    The interpreter is not taken down around what is left: threads that native libraries keep, and
    calls that were cut off, may crash a process that ends well.
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
