"""Starts the log of a process."""

from __future__ import annotations

import logging
import os
import sys
import threading
from types import TracebackType

from service.logs.log_settings import LogSettings
from service.logs.native import let_native_messages_pass
from service.logs.queued import QueuedLog

_log = logging.getLogger(__name__)

_STDERR_FD = 2
_used = LogSettings()


def start_log(settings: LogSettings, speaker: str = "") -> None:
    """Write log lines as the settings say; no thread waits for their reader.

    Python's warnings, and exceptions that end a thread or the process, are log lines, too.

    Args:
        settings: level, format and file.
        speaker: which process of the server this is; "" for the one that was started.

    Raises:
        OSError: the log file cannot be opened. A process that was not started first has no log
            then, until the file can be opened.
    """
    global _used
    _open_standard_streams()
    if logging.root.handlers:
        return
    handler = QueuedLog(settings, speaker)
    if not speaker:
        handler.reopen()
    logging.root.addHandler(handler)
    logging.root.setLevel(settings.log_level.upper())
    let_native_messages_pass()
    logging.captureWarnings(True)
    threading.excepthook = _log_end_of_thread
    sys.excepthook = _log_end_of_process
    _used = settings


def used_log_settings() -> LogSettings:
    """Those of this process's log, for processes that it starts."""
    return _used


def reopen_log() -> None:
    """Reopen the log's file if it was moved away."""
    for handler in logging.root.handlers:
        if isinstance(handler, QueuedLog):
            try:
                handler.reopen()
            except OSError as error:
                _log.error("the log file cannot be reopened: %s", error.strerror)
                return
            _log.info("the log file is open")


def _log_end_of_thread(ended: threading.ExceptHookArgs) -> None:
    """Log what has ended a thread, which Python itself would only write to stderr."""
    if ended.exc_value is not None and ended.exc_type is not SystemExit:
        name = "" if ended.thread is None else ended.thread.name
        _log.error("the thread %r ended by an exception", name, exc_info=ended.exc_value)


def _log_end_of_process(
    kind: type[BaseException], error: BaseException, frames: TracebackType | None
) -> None:
    """Log what ends the process."""
    _log.critical("the process ends by an exception", exc_info=(kind, error, frames))


def _open_standard_streams() -> None:
    """Put nothing where a standard stream is closed.

    A connection that got the number of stderr would have log lines and native libraries' messages
    written into it.
    """
    for fd in range(_STDERR_FD + 1):
        try:
            os.fstat(fd)
        except OSError:
            # It gets the lowest number that is free, which is this one.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.dup(_STDERR_FD), "w"))
