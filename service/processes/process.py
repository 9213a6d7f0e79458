"""What every process of a server does alike: tell why it failed, leave."""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from service.errors import ConfigurationError

STDERR_FD = 2
# After --drain-timeout-s, for what a server has to do between its last reply and its end.
LEAVING_S = 5.0
# Of these, for a handler to close.
CLOSING_S = 2.0
DYING_S = 1.0
"""A process that is killed ends at once, unless the kernel itself is at work for it."""
# For what is still to be written, if it is read.
_FLUSHING_S = 1.0
# For the stacks of a process that is ended.
_DUMPING_S = 1.0


def error_line(error: ConfigurationError | OSError) -> tuple[str, int]:
    """What ends a server, as one line for the user and as its exit code."""
    if isinstance(error, ConfigurationError):
        return " ".join(str(error).split()), 2
    text = error.strerror or str(error)
    if error.filename:
        text = f"{error.filename}: {text}"
    return " ".join(text.split()), 1


def write_error(line: str) -> None:
    """Write a line for the user to stderr; a reader that hangs does not block it for long."""

    def write() -> None:
        sys.stderr.write(f"{line}\n")

    is_done_within(_FLUSHING_S, write)


def is_done_within(seconds: float | None, call: Callable[[], None]) -> bool:
    """Run `call` in a thread of its own; whether it has returned in that time (None: wait)."""
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(seconds)
    return not thread.is_alive()


def end_within(seconds: float) -> None:
    """End this process after that time, whatever it is doing: exit code 1, all stacks in the log.

    It takes no interpreter lock. Where the log is not read, the kernel's timer ends it a second
    later, by SIGALRM. Only the last call counts.
    """
    signal.setitimer(signal.ITIMER_REAL, seconds + _DUMPING_S)
    faulthandler.dump_traceback_later(seconds, exit=True, file=STDERR_FD)


def end_at_will() -> None:
    """Cancel `end_within`."""
    faulthandler.cancel_dump_traceback_later()
    signal.setitimer(signal.ITIMER_REAL, 0)


def leave(code: int, patience_s: float | None = _FLUSHING_S) -> NoReturn:
    """End this process, in which everything is closed by now.

    The interpreter is not taken down around what is left: threads that native libraries keep, and
    calls that were cut off, may crash a process that ends well.

    Args:
        code: its exit code.
        patience_s: how long what it has written may take to be read; None for as long as it takes.
    """
    is_done_within(patience_s, _flush)
    os._exit(code)


def _flush() -> None:
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        # Their readers may be gone.
        with suppress(OSError, ValueError):
            stream.flush()
