"""A worker's part in the stats of its server: it tells of itself, and asks for the whole."""

from __future__ import annotations

import logging
import os
import threading
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import replace
from typing import Protocol, TypeVar

from interfaces.stats import Stats
from service.gpus import gpus
from service.processes.control_channel import ControlChannel, Received
from service.processes.stats_report import Report, content_of, decode_stats, report_file
from service.processes.worker_messages import (
    StatsReport,
    StatsRequest,
    WholeStats,
    WholeStatsRequest,
)

_log = logging.getLogger(__name__)

# Longest time that the supervisor takes; it waits for workers for less.
_TIMEOUT_S = 5.0
_T = TypeVar("_T")


def in_time(answer: Future[_T]) -> _T:
    """What the supervisor's serving thread answers; TimeoutError if it does not come to it."""
    try:
        return answer.result(_TIMEOUT_S)
    # Only from Python 3.11 on are these the same.
    except (TimeoutError, FutureTimeoutError):
        raise TimeoutError(f"the supervisor has not answered within {_TIMEOUT_S:g} s") from None


class ReportSource(Protocol):
    """Makes a worker's report."""

    def __call__(self, *, with_info: bool) -> Report | None:
        """The report; None before it can serve."""


class WorkerStatsLine:
    """Talks with the supervisor; `receive` and `report` belong to the serving thread.

    One question is under way at a time, so that no channel fills where the other side hangs.

    Args:
        control: the channel to the supervisor.

    Attributes:
        source: makes this worker's report; None until there is a server.
    """

    def __init__(self, control: ControlChannel) -> None:
        self._control = control
        self.source: ReportSource | None = None
        self._lock = threading.Lock()
        # Those for whom the question under way is, and those who came after it was asked.
        self._asked: list[Future[Stats]] = []
        self._next: list[Future[Stats]] = []

    def whole(self) -> Stats:
        """The stats of the whole server; for any other thread.

        Raises:
            TimeoutError: the supervisor does not answer.
        """
        answer: Future[Stats] = Future()
        with self._lock:
            self._next.append(answer)
            self._ask()
        try:
            # Not by the supervisor's serving thread, which the driver may keep waiting.
            return replace(in_time(answer), gpus=gpus())
        finally:
            with self._lock:
                if answer in self._next:
                    self._next.remove(answer)

    def _ask(self) -> None:
        if self._next and not self._asked:
            self._asked, self._next = self._next, []
            self._control.send(WholeStatsRequest())

    def report(self, number: int = 0) -> None:
        """Tell the supervisor what this worker has done.

        Args:
            number: of its question; 0 if it did not ask.
        """
        # What only changes when something breaks takes milliseconds to find out.
        report = None if self.source is None else self.source(with_info=bool(number))
        if report is None:
            return
        try:
            fd = report_file(report)
            try:
                self._control.send(StatsReport(number), [fd])
            finally:
                os.close(fd)
        except OSError as error:
            # It goes on with what it was told last.
            _log.warning("cannot tell the supervisor what was counted: %s", error.strerror)

    def receive(self, message: Received) -> None:
        """Take a message of the supervisor."""
        content = message.content
        if isinstance(content, StatsRequest):
            self.report(content.number)
        elif isinstance(content, WholeStats):
            with self._lock:
                asked, self._asked = self._asked, []
                self._ask()
            try:
                stats = decode_stats(content_of(message.descriptor()))
            except OSError as error:
                _log.warning("cannot read the server's stats: %s", error.strerror)
                return
            for answer in asked:
                answer.set_result(stats)
