"""The log's handler: lines are written by a thread of their own."""

from __future__ import annotations

import logging
import os
import queue
from logging.handlers import QueueHandler, QueueListener

from service.logs.formats import formatter
from service.logs.line_writer import LineWriter
from service.logs.log_settings import LogSettings

REQUESTS = "service.requests"
"""The logger that has a line for each request."""

# Lines that wait for a reader; further ones are counted and dropped.
_MOST_WAITING = 1000
# So many lines of requests may wait while others are written.
_MOST_UNHURRIED = 500
# A thread that logs waits so long for its line, unless others wait for the reader already.
_PATIENCE_S = 0.2
# A process that ends.
_LAST_PATIENCE_S = 1.0


class QueuedLog(QueueHandler):
    """Writes log lines in a thread of its own, so that a full pipe blocks no other.

    While the reader reads, a line is written before the logging thread goes on: what a process says
    before it crashes is not lost. Only lines of requests may wait for others, so that each costs no
    change of threads. Where nothing is read lines wait, and where too many do, the next one that
    finds room says how many were dropped.

    Args:
        settings: format and file.
        speaker: which process of the server this is; "" for the one that was started.
    """

    queue: queue.Queue[logging.LogRecord]

    def __init__(self, settings: LogSettings, speaker: str) -> None:
        super().__init__(queue.Queue(_MOST_WAITING))
        self.setFormatter(formatter(settings.log_format, speaker))
        self._dropped = 0
        self._pid = os.getpid()
        # The last wait for the reader was in vain, and what waited then still does.
        self._is_stuck = False
        self._writer = LineWriter(settings.log_file, self._has_waiting)
        # Its thread is a daemon: it keeps no process from its end.
        QueueListener(self.queue, self._writer).start()

    def emit(self, record: logging.LogRecord) -> None:
        """Have a record written."""
        if os.getpid() == self._pid:
            super().emit(record)
        else:
            # A process that was forked off has no such thread.
            self._writer.write_alone(self.prepare(record))

    def enqueue(self, record: logging.LogRecord) -> None:
        """Hand a record to the writing thread; called by one thread at a time."""
        waiting = self.queue.unfinished_tasks
        try:
            if self._dropped and waiting < _MOST_WAITING - 1:
                self.queue.put_nowait(self.prepare(self._told_dropped()))
                self._dropped = 0
            self.queue.put_nowait(record)
        except queue.Full:
            self._dropped += 1
            return
        if not waiting:
            self._is_stuck = False
        may_wait = record.name == REQUESTS and waiting < _MOST_UNHURRIED
        if not self._is_stuck and not may_wait:
            self._is_stuck = not self._wait(_PATIENCE_S)

    def flush(self) -> None:
        """Let the lines that wait be written, as far as they are read."""
        self._wait(_LAST_PATIENCE_S)

    def reopen(self) -> None:
        """Open the log's file, anew if it was moved; for any thread.

        Raises:
            OSError: it cannot be opened.
        """
        self._writer.acquire()
        try:
            self._writer.reopen()
        finally:
            self._writer.release()

    def _has_waiting(self) -> bool:
        return not self.queue.empty()

    def _wait(self, seconds: float) -> bool:
        """Wait until all lines are written; whether they are."""
        with self.queue.all_tasks_done:
            return self.queue.all_tasks_done.wait_for(
                lambda: not self.queue.unfinished_tasks, seconds
            )

    def _told_dropped(self) -> logging.LogRecord:
        told = f"{self._dropped} log lines were dropped: they were not read"
        return logging.LogRecord(__name__, logging.WARNING, __file__, 0, told, None, None)
