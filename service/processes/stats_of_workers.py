"""The stats of a server with several workers: the supervisor asks them all, and adds up.

What a worker has counted stays when it ends, as far as it had told of it: it tells with each
heartbeat, and when it has drained. So the sum never falls.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any

from interfaces.stats import Stats, WorkerStats, added, without_now
from service.options.server_settings import ServerSettings
from service.processes.stats_report import Report
from service.processes.worker_messages import StatsRequest
from service.processes.worker_process import WorkerProcess

_log = logging.getLogger(__name__)

# A worker that has not answered by then is in the sums with what it told last, and no further round
# waits for it until it does.
_LONGEST_ROUND_S = 1.0


@dataclass
class _Told:
    """A worker's last report, and when it came."""

    report: Report
    at_s: float


@dataclass
class _Round:
    """One question to all workers.

    Attributes:
        number: tells it from others.
        answers: called with the sum.
        end_s: when it is over, on the monotonic clock.
        missing: workers that were asked and have not answered.
    """

    number: int
    answers: list[Callable[[Stats], None]]
    end_s: float
    missing: set[WorkerProcess]


@dataclass
class _EngineProcesses:
    """The engine processes that there have been, each told of by several workers.

    Attributes:
        latest: the newest numbers of each, by what tells it from others.
    """

    latest: dict[tuple[int, float], Stats] = field(default_factory=dict)

    def note(self, told: Stats) -> None:
        """Some worker's copy of the numbers of one."""
        process = told.engine_process
        if process is None:
            return
        key = process.pid, process.started_at_s
        known = self.latest.get(key)
        if known is None or told.uptime_s >= known.uptime_s:
            self.latest[key] = told

    def total(self) -> Stats:
        """The sum, with the state of the newest one."""
        if not self.latest:
            return Stats()
        newest = max(self.latest, key=lambda key: key[1])
        process = self.latest[newest].engine_process
        gone = [without_now(told) for key, told in self.latest.items() if key != newest]
        whole = reduce(added, gone, self.latest[newest])
        restarts = len(self.latest) - 1
        return replace(
            whole,
            uptime_s=0.0,
            engine_process=None if process is None else replace(process, restarts=restarts),
        )


class StatsOfWorkers:
    """Used by the supervisor's serving thread only.

    Args:
        serving: gives the workers that serve.
        settings: the server's.

    Attributes:
        info: the ServerInfo that a worker has told last; None while none has.
    """

    def __init__(
        self, serving: Callable[[], Iterable[WorkerProcess]], settings: ServerSettings
    ) -> None:
        self._serving = serving
        self._settings = settings
        self._started_s = time.monotonic()
        self._told: dict[WorkerProcess, _Told] = {}
        # They have not answered an earlier question, and get no other until they do, so that the
        # channel to one that hangs does not fill.
        self._owing: set[WorkerProcess] = set()
        self._ended = Stats()
        self.info: Any = None
        self._engines = _EngineProcesses()
        self._rounds = 0
        self._round: _Round | None = None
        # What came while a round was under way, whose numbers are older than the question.
        self._next: list[Callable[[Stats], None]] = []

    def ask(self, answer: Callable[[Stats], None]) -> None:
        """Call `answer` with the sum once all workers have told, or a second later."""
        self._next.append(answer)
        self._begin_round()

    def take(self, worker: WorkerProcess, number: int, report: Report) -> None:
        """A worker's report.

        Args:
            worker: whose it is.
            number: of the round; 0 if it was not asked.
            report: what it tells.
        """
        self._told[worker] = _Told(report, time.monotonic())
        self.info = report.info or self.info
        if report.elsewhere is not None:
            self._engines.note(report.elsewhere)
        if number:
            self._owing.discard(worker)
        if self._round is not None and number == self._round.number:
            self._answered(worker)

    def ended(self, worker: WorkerProcess, *, is_replaced: bool) -> None:
        """A worker is gone, and what it has told of stays."""
        self._owing.discard(worker)
        told = self._told.pop(worker, None)
        if told is not None:
            if is_replaced:
                _log.warning(
                    "what the worker with pid %d counted in its last %.1f s is not in the stats",
                    worker.pid,
                    time.monotonic() - told.at_s,
                )
            self._ended = added(self._ended, without_now(told.report.own))
        self._ended = replace(
            self._ended, worker_restarts=self._ended.worker_restarts + is_replaced
        )
        self._answered(worker)

    @property
    def due_s(self) -> float:
        """When the round ends, whatever is missing then, on the monotonic clock."""
        return math.inf if self._round is None else self._round.end_s

    def end_overdue(self) -> None:
        """End the round if its time has come."""
        if self._round is not None and self._round.end_s <= time.monotonic():
            self._end_round()

    def _begin_round(self) -> None:
        if self._round is not None or not self._next:
            return
        self._rounds += 1
        answers, self._next = self._next, []
        end_s = time.monotonic() + _LONGEST_ROUND_S
        asked = {worker for worker in self._serving() if worker not in self._owing}
        self._round = _Round(self._rounds, answers, end_s, asked)
        for worker in asked:
            # One that is gone will be told to have ended.
            if worker.control.send(StatsRequest(self._rounds)):
                self._owing.add(worker)
        if not asked:
            self._end_round()

    def _answered(self, worker: WorkerProcess) -> None:
        if self._round is not None:
            self._round.missing.discard(worker)
            if not self._round.missing:
                self._end_round()

    def _end_round(self) -> None:
        ended, self._round = self._round, None
        if ended is not None:
            total = self._total()
            for answer in ended.answers:
                answer(total)
        self._begin_round()

    def _total(self) -> Stats:
        now_s = time.monotonic()
        total = added(self._ended, self._engines.total())
        workers: list[WorkerStats] = []
        for worker in self._serving():
            told = self._told.get(worker)
            if told is None:
                continue
            total = added(total, replace(told.report.own, workers=[]))
            age_s = now_s - told.at_s if worker in self._owing else 0.0
            workers += [
                replace(one, worker=worker.index, report_age_s=age_s)
                for one in told.report.own.workers
            ]
        return replace(
            total,
            uptime_s=now_s - self._started_s,
            workers=workers,
            max_connections=self._settings.max_connections,
            wanted_workers=self._settings.processes,
        )
