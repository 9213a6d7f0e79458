"""Log lines: written without blocking, limited in rate, and those of C libraries."""

from __future__ import annotations

import ctypes
import logging
import math
import os
import queue
import stat
import sys
import threading
import time
from collections.abc import Callable
from logging.handlers import QueueHandler, QueueListener

_log = logging.getLogger(__name__)

# Lines that wait for a reader; further ones are counted and dropped.
_MOST_WAITING = 1000
# A thread that logs waits so long for its line, unless others wait for the reader already.
_PATIENCE_S = 0.2
# A process that ends.
_LAST_PATIENCE_S = 1.0
# From one warning of a kind to the next.
_PERIOD_S = 10.0
_STDERR_FD = 2
# Of setvbuf.
_UNBUFFERED = 2


class StderrLog(QueueHandler):
    """Writes log lines to stderr in a thread of its own, so that a full pipe blocks no other.

    While the reader reads, a line is written before the logging thread goes on: what a process says
    before it crashes is not lost. Otherwise lines wait, and where too many do, the next one that
    finds room says how many were dropped.

    Args:
        speaker: precedes each logger's name, to tell several processes apart.
    """

    queue: queue.Queue[logging.LogRecord]

    def __init__(self, speaker: str) -> None:
        super().__init__(queue.Queue(_MOST_WAITING))
        self._dropped = 0
        self._pid = os.getpid()
        self._writer = logging.StreamHandler(sys.stderr)
        self._writer.setFormatter(
            logging.Formatter(f"%(asctime)s %(levelname)s {speaker}%(name)s: %(message)s")
        )
        # Its thread is a daemon: it keeps no process from its end.
        QueueListener(self.queue, self._writer).start()

    def emit(self, record: logging.LogRecord) -> None:
        """Have a record written."""
        if os.getpid() == self._pid:
            super().emit(record)
        else:
            # A process that was forked off has no such thread.
            self._writer.handle(record)

    def enqueue(self, record: logging.LogRecord) -> None:
        """Hand a record to the writing thread; called by one thread at a time."""
        waiting = self.queue.unfinished_tasks
        try:
            if self._dropped and waiting < _MOST_WAITING - 1:
                self.queue.put_nowait(self._told_dropped())
                self._dropped = 0
            self.queue.put_nowait(record)
        except queue.Full:
            self._dropped += 1
            return
        if not waiting:
            self._wait(_PATIENCE_S)

    def flush(self) -> None:
        """Let the lines that wait be written, as far as they are read."""
        self._wait(_LAST_PATIENCE_S)

    def _wait(self, seconds: float) -> None:
        with self.queue.all_tasks_done:
            self.queue.all_tasks_done.wait_for(lambda: not self.queue.unfinished_tasks, seconds)

    def _told_dropped(self) -> logging.LogRecord:
        told = f"{self._dropped} log lines were dropped: stderr was not read"
        return logging.LogRecord(__name__, logging.WARNING, __file__, 0, told, None, None)


class RateLimitedWarnings:
    """Warnings of one kind: the first one at once, and then one in each period, with a count.

    Args:
        log: where they are written; those left out are there at the level DEBUG.
        period_s: from one to the next.
        clock: tells the time in seconds.
    """

    def __init__(
        self,
        log: logging.Logger,
        period_s: float = _PERIOD_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = log
        self._clock = clock
        self._period_s = period_s
        self._lock = threading.Lock()
        self._next_s = -math.inf
        self._left_out = 0

    def warn(self, message: str, *arguments: object) -> None:
        """Write a line, or count it; any thread may call this."""
        with self._lock:
            now_s = self._clock()
            is_due = now_s >= self._next_s
            left_out, self._left_out = self._left_out, 0 if is_due else self._left_out + 1
            if is_due:
                self._next_s = now_s + self._period_s
        if not is_due:
            self._log.debug(message, *arguments)
        elif left_out:
            self._log.warning(f"{message} (and {left_out} more of this kind)", *arguments)
        else:
            self._log.warning(message, *arguments)


def let_native_messages_pass() -> None:
    """Let no C library wait for the reader of stderr, where that is a pipe.

    What they write, as libjpeg does of each damaged image, goes there as it is, and is lost only
    where the pipe is full: so the last words before an abort are seen. What is replaced is C's
    `stderr`; the interpreter's own messages go to the descriptor as ever.
    """
    libc = ctypes.CDLL(None)
    # Elsewhere the stream is a constant.
    is_glibc = hasattr(libc, "gnu_get_libc_version")
    if not is_glibc or not stat.S_ISFIFO(os.fstat(_STDERR_FD).st_mode):
        return
    try:
        # Of the same pipe: other processes that share the descriptor expect it to block.
        fd = os.open(f"/proc/self/fd/{_STDERR_FD}", os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return
    libc.fdopen.restype = ctypes.c_void_p
    libc.fdopen.argtypes = [ctypes.c_int, ctypes.c_char_p]
    libc.setvbuf.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_size_t]
    stream = libc.fdopen(fd, b"w")
    libc.setvbuf(stream, None, _UNBUFFERED, 0)
    ctypes.c_void_p.in_dll(libc, "stderr").value = stream
