"""The log's handler: lines are written by a thread of their own."""

from __future__ import annotations

import logging
import os
import queue
import threading

from service.logs.formats import formatter
from service.logs.line_writer import LineWriter
from service.logs.log_settings import LogSettings

REQUESTS = "service.requests"
"""The logger that has a line for each request."""

# Lines that wait for a reader; further ones are counted and dropped.
_MOST_WAITING = 1000
# So many lines of requests may wait while others are written.
_MOST_UNHURRIED = 500
# Written with one call; more would keep the first of them back.
_MOST_AT_ONCE = 100
# A thread that logs waits so long for its line, unless others wait for the reader already.
_PATIENCE_S = 0.2
# A process that ends.
_LAST_PATIENCE_S = 1.0


class QueuedLog(logging.Handler):
    """Writes log lines in a thread of its own, so that a full pipe blocks no other.

    While the reader reads, a line is written before the logging thread goes on: what a process says
    before it crashes is not lost. Only lines of requests may wait for others, so that each costs no
    change of threads. Where nothing is read lines wait, and where too many do, the next one that
    finds room says how many were dropped.

    Args:
        settings: format and file.
        speaker: which process of the server this is; "" for the one that was started.
    """

    def __init__(self, settings: LogSettings, speaker: str) -> None:
        super().__init__()
        self.setFormatter(formatter(settings.log_format, speaker))
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        # How many lines there have been: of the threads that log, and of the one that writes.
        self._given, self._written = 0, 0
        self._progress = threading.Condition()
        self._dropped = 0
        # The last wait for the reader was in vain, and what waited then still does.
        self._is_stuck = False
        self._pid = os.getpid()
        self._writer = LineWriter(settings.log_file, self._warning)
        # It keeps no process alive.
        threading.Thread(target=self._write, name="log", daemon=True).start()

    @property
    def waiting(self) -> int:
        """How many lines are not written yet."""
        return self._given - self._written

    def emit(self, record: logging.LogRecord) -> None:
        """Have a record written; called by one thread at a time."""
        line = self.format(record)
        if os.getpid() != self._pid:
            # A process that was forked off has no such thread.
            self._writer.write_in_fork(line)
            return
        waiting = self.waiting
        if waiting >= _MOST_WAITING:
            self._dropped += 1
            return
        if self._dropped and waiting < _MOST_WAITING - 1:
            told = f"{self._dropped} log lines were dropped: they were not read"
            self._give(self._warning(told))
            self._dropped = 0
        self._give(line)
        if not waiting:
            self._is_stuck = False
        may_wait = record.name == REQUESTS and waiting < _MOST_UNHURRIED
        if not self._is_stuck and not may_wait:
            self._is_stuck = not self._wait(_PATIENCE_S)

    def flush(self) -> None:
        """Let the lines that wait be written, as far as they are read."""
        self._wait(_LAST_PATIENCE_S)

    def reopen(self) -> None:
        """Open the log's file unless it is open and where it was; for any thread.

        Raises:
            OSError: it cannot be opened.
        """
        self._writer.reopen()

    def _give(self, line: str) -> None:
        self._given += 1
        self._lines.put(line)

    def _write(self) -> None:
        """Write lines as they come, those that have come together with one call."""
        while True:
            lines = [self._lines.get()]
            more = min(self._lines.qsize(), _MOST_AT_ONCE - 1)
            lines += [self._lines.get() for _ in range(more)]
            self._writer.write(lines)
            with self._progress:
                self._written += len(lines)
                self._progress.notify_all()

    def _wait(self, seconds: float) -> bool:
        """Wait until all lines are written; whether they are."""
        with self._progress:
            return self._progress.wait_for(lambda: not self.waiting, seconds)

    def _warning(self, text: str) -> str:
        """A line of this log's own."""
        record = logging.LogRecord(__name__, logging.WARNING, __file__, 0, text, None, None)
        return self.format(record)
