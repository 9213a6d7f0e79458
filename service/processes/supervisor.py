"""Several server processes behind one port: how they start, serve and end together."""

from __future__ import annotations

import logging
import math
import selectors
import time
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

from interfaces.stats import Stats
from service.accepting.listener import PortListener
from service.gpus import gpus
from service.options.given import GivenOptions
from service.options.server_settings import ServerSettings
from service.processes.dispatcher import Dispatcher
from service.processes.exit_reasons import how_it_ended, oom_kills
from service.processes.heartbeats import Heartbeats
from service.processes.lifecycle import STARTING, Lifecycle
from service.processes.process import LEAVING_S
from service.processes.shared_folder import SharedFolder
from service.processes.stats_of_workers import StatsOfWorkers
from service.processes.stats_report import read_report
from service.processes.subreaper import become_subreaper, reap_orphans, wait_for_children
from service.processes.worker_messages import (
    ConnectionCounts,
    Drained,
    Ready,
    StartFailure,
    StatsReport,
    WholeStatsRequest,
)
from service.processes.worker_process import WorkerProcess
from service.processes.worker_slots import WorkerSlot, WorkerSlots
from service.processes.worker_stats import in_time

_log = logging.getLogger(__name__)

# Of the time to leave, what stays for an engine process that has lost its last worker.
_ENGINE_LEAVES_S = 2.5


class Supervisor(Lifecycle):
    """Keeps `settings.processes` workers going, and distributes the port's connections among them.

    It takes its process for itself: all of the process's children are the workers', and none is
    left when it ends.

    Args:
        settings: the whole server's.
        given: the options, from which each worker takes its own settings.
        why: why there are so many workers, in words.
    """

    _listener: PortListener

    def __init__(self, settings: ServerSettings, given: GivenOptions, why: str) -> None:
        super().__init__(settings, PortListener(settings))
        self._given = given
        self._why_so_many = why
        self._shared_folder = SharedFolder()
        self._slots = WorkerSlots(settings.processes, self, self._launch)
        self._dispatcher = Dispatcher(self._listener, self._slots.workers)
        self._stats = StatsOfWorkers(self._slots.serving, settings)
        self._draining = False
        self._heartbeats = Heartbeats(settings.hang_timeout_s)
        self._oom_kills = oom_kills()
        # By when all processes have left; None until it is time to.
        self._left_by_s: float | None = None
        self._cut_off = 0

    def abandon(self) -> None:
        """As for any server; the folder that the workers share goes, too."""
        self._draining = True
        super().abandon()
        self._shared_folder.close()

    def __exit__(self, *exception: object) -> None:
        super().__exit__(*exception)
        self._shared_folder.close()

    def startup(self) -> None:
        """Take the port, wait until all workers are warm, then let clients in."""
        become_subreaper()
        self._listener.open()
        # The first one alone: what it prepares and keeps in files, such as a built engine, is
        # there for the others then, and a setting that cannot work is told once.
        for warm in (1, len(self._slots)):
            self._slots.want(warm)
            while not self._stop_reason and len(self._slots.serving()) < warm:
                self._turn()
            if self._slots.failure is not None:
                raise self._slots.failure
            if self._stop_reason:
                return
        running = self._slots.serving()[0].running
        _log.info("workers: %d (%s)", len(self._slots), self._why_so_many)
        _log.info("options: %s", self._given)
        # First, since a reader of the ready line may stop the server at once.
        self.ready = True
        self._listener.start(self._selector, f"{running} in {len(self._slots)} workers")

    def drain(self) -> int:
        """Let all workers finish their requests, for `drain_timeout_s` at most.

        Returns:
            How many requests were cut off unfinished.

        Raises:
            WorkerError: a worker cannot be started, which is why the others have drained.
        """
        self._draining = True
        self._listener.close()
        self._dispatcher.drop_waiting()
        _log.info("stopping (%s): %d workers drain", self._stop_reason, len(self._slots.serving()))
        self._slots.want_none()
        for worker in self._slots.workers():
            if worker.running:
                worker.stop(self._stop_reason)
            else:
                worker.kill()
        self._left_by_s = time.monotonic() + self._settings.drain_timeout_s + LEAVING_S
        deadline_s = self._left_by_s - _ENGINE_LEAVES_S
        while self._slots.workers() and time.monotonic() < deadline_s:
            self._turn(deadline_s)
        for worker in self._slots.workers():
            _log.error(
                "worker with pid %d did not exit; killing it with %d connections",
                worker.pid,
                worker.connections,
            )
            self._cut_off += worker.connections
        if self._slots.failure is not None:
            raise self._slots.failure
        return self._cut_off

    def shutdown(self) -> None:
        """Free the port; no worker is left, nor anything that a worker has started."""
        super().shutdown()
        self._dispatcher.drop_waiting()
        for worker in self._slots.workers():
            worker.kill()
        for slot, worker in self._slots.taken():
            self._reap(slot, worker)
        own = self._shared_folder.process_ids()
        # The engine process ends without it, if it has not with its last worker.
        self._shared_folder.close()
        # Whatever was started for a server that never served has nothing to finish.
        left_s = 0.0 if self._left_by_s is None else self._left_by_s - time.monotonic()
        for pid in wait_for_children(left_s, own):
            if self._left_by_s is None:
                continue
            if pid in own:
                _log.error("process %d, which a worker had started, hung and was killed", pid)
            else:
                _log.warning("process %d, which a backend had started, was left and is killed", pid)

    def stats(self) -> Stats:
        """The sum over all workers."""
        return replace(self._sum_of_workers(), gpus=gpus())

    def info(self) -> Any:
        """The ServerInfo of one of the workers."""
        answer: Future[Any] = Future()
        self.soon(lambda: self._stats.ask(lambda _: answer.set_result(self._stats.info)))
        return in_time(answer)

    def why_not_ready(self) -> str:
        """Why one of the workers can take no requests, where none can; else ""."""
        if self._stop_reason:
            return f"the server stops: {self._stop_reason}"
        if not self.ready:
            return STARTING
        # Of GPUs nothing is asked: a driver may keep a probe waiting.
        workers = self._sum_of_workers().workers
        if not workers:
            return "no worker serves; they are being replaced"
        return "" if any(not one.why_not_ready for one in workers) else workers[0].why_not_ready

    def _sum_of_workers(self) -> Stats:
        answer: Future[Stats] = Future()
        self.soon(lambda: self._stats.ask(answer.set_result))
        return in_time(answer)

    def _sum_up(self) -> None:
        self._stats.ask(self._troubles.tell)

    def _announce_stop(self) -> None:
        for worker in self._slots.serving():
            worker.announce_stop(self._stop_reason)

    def _next_due_s(self) -> float:
        return min(self._heartbeats.next_s, self._stats.due_s, self._slots.next_start_s)

    def _on_readable(self, data: Any) -> None:
        if isinstance(data, WorkerSlot):
            self._receive(data)
        else:
            self._dispatcher.accept()

    def _turn(self, end_s: float = math.inf) -> None:
        super()._turn(end_s)
        for slot, worker in self._slots.start_due():
            self._selector.register(worker.control, selectors.EVENT_READ, slot)
        # After all that was received in this turn.
        if self._heartbeats.is_due() and not self._draining:
            self._check_heartbeats()
        self._stats.end_overdue()
        if self.ready and not self._draining:
            self._dispatcher.hand_out()

    def _check_heartbeats(self) -> None:
        """Ask the workers that serve for a sign of life, and kill those that hang.

        A worker that still starts is not asked.
        """
        for slot, worker in self._slots.taken():
            if worker.running and worker.beat():
                self._worker_ended(slot, worker)

    def _on_wakeup(self) -> None:
        """Reap the workers that have ended, and processes that one had started before."""
        for slot, worker in self._slots.taken():
            if worker.has_ended:
                while slot.worker is worker and worker.control.has_message():
                    self._receive(slot)
                if slot.worker is worker:
                    self._worker_ended(slot, worker)
        for pid, exit_code in reap_orphans([worker.pid for worker in self._slots.workers()]):
            if exit_code:
                how = how_it_ended(exit_code, self._oom_kills)
                _log.error("process %d, which a worker had started, ended: %s", pid, how)

    def _launch(self, index: int) -> WorkerProcess:
        return WorkerProcess(
            index, len(self._slots), self._why_so_many, self._given, self._shared_folder.path
        )

    def _receive(self, slot: WorkerSlot) -> None:
        """Handle one message of a worker, or its end."""
        worker = slot.worker
        if worker is None:
            return
        message = worker.control.receive()
        if message is None:
            self._worker_ended(slot, worker)
            return
        worker.shows_life()
        content = message.content
        if isinstance(content, Ready):
            if self._draining:
                return  # It was killed while it started: it has no connection to lose.
            worker.running = content.running
            slot.failed_starts = 0
            if self._stop_reason:
                worker.announce_stop(self._stop_reason)
            _log.info("worker %d is warm (pid %d)", slot.index, worker.pid)
        elif isinstance(content, ConnectionCounts):
            self._listener.count_closed(*worker.update_counts(content))
        elif isinstance(content, StatsReport):
            try:
                report = read_report(message.descriptor())
            except OSError as error:
                # The sum goes on with what it told last.
                _log.warning("cannot read the stats of worker %d: %s", slot.index, error.strerror)
            else:
                self._stats.take(worker, content.number, report)
        elif isinstance(content, WholeStatsRequest):
            self._stats.ask(worker.tell_stats)
        elif isinstance(content, StartFailure):
            worker.failure = content
        elif isinstance(content, Drained):
            worker.cut_off = content.cut_off

    def _worker_ended(self, slot: WorkerSlot, worker: WorkerProcess) -> None:
        """Take back the connections of a worker that has ended, and replace it."""
        # It may be on its way out still, or have closed its end without leaving.
        worker.kill()
        status = self._reap(slot, worker)
        self._stats.ended(worker, is_replaced=bool(worker.running) and not self._draining)
        lost = self._dispatcher.take_back(worker)
        if self._draining:
            self._dispatcher.drop_waiting()
            cut_off = worker.cut_off
            if cut_off is None and worker.running:
                _log.error("worker %d ended while it drained (%s)", slot.index, status)
                cut_off = max(1, worker.connections)
            self._cut_off += cut_off or 0
        elif worker.running:
            _log.error(
                "worker %d (pid %d) ended with %d connections and is replaced: %s",
                slot.index,
                worker.pid,
                lost,
                self._why(worker, status),
            )
            slot.start_in(0.0)
        else:
            self._slots.start_failed(slot, f"ended before it was ready ({status})", worker.failure)

    def _why(self, worker: WorkerProcess, status: str) -> str:
        """Why a worker that served has ended."""
        if worker.hangs:
            limit_s = self._settings.hang_timeout_s
            return f"it gave no sign of life for --hang-timeout-s = {limit_s:g} and was killed"
        return status if worker.failure is None else worker.failure.line

    def _reap(self, slot: WorkerSlot, worker: WorkerProcess) -> str:
        """Wait for a worker's end, which must be under way; how it ended, in words."""
        self._selector.unregister(worker.control)
        slot.worker = None
        return worker.reap()
