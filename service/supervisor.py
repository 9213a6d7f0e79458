"""Several server processes behind one port.

The supervisor has the port. It accepts connections and hands each to the worker with the fewest,
through a Unix socket; what is said on a connection never passes through it. Sharing the port by
SO_REUSEPORT instead would spread connections by chance, and Thrift clients keep theirs: the
fullest worker would decide the tail latency; it would also let other programs join the port, and
lose the connections that wait for a worker that died. Node.js's cluster module hands accepted
sockets to its processes in the same way.
"""

from __future__ import annotations

import logging
import selectors
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from service.arrivals import Arrival, PortArrivals
from service.orphans import adopt_orphans, wait_for_children
from service.server_settings import ServerSettings
from service.wake import Wake
from service.worker_process import StartFailure, WorkerProcess

_log = logging.getLogger(__name__)

# Before the second and third attempt to start a worker; there is no fourth.
_PAUSES_S = (0.5, 2.0)
# For what a worker has to do between its last reply and its end, after --drain-timeout-s.
_LEAVING_S = 10.0


class WorkerError(Exception):
    """A worker cannot be started.

    Attributes:
        exit_code: the server's.
    """

    def __init__(self, failure: StartFailure) -> None:
        super().__init__(failure.line)
        self.exit_code = failure.exit_code


@dataclass
class _Seat:
    """The place of one worker, whichever process takes it.

    Attributes:
        index: the worker's number.
        worker: its process, if there is one.
        start_at_s: when the next one is due, on the monotonic clock; None where none is.
        failed_starts: how many in a row ended before they were ready.
    """

    index: int
    worker: WorkerProcess | None = None
    start_at_s: float | None = None
    failed_starts: int = 0


class Supervisor:
    """Keeps `settings.workers` workers going, and shares the port's connections out among them.

    A context manager. `run` calls `startup`, `serve`, `drain` and `shutdown` in this order, in one
    thread, as `Server` does; `stop` may be called from anywhere. It takes its process for itself:
    all of the process's children are the workers', and none is left when it ends.

    Args:
        settings: the whole server's.
        arguments: the command line, from which each worker takes its own settings.

    Attributes:
        ready: whether it is past its start, so that a stop has to drain it.
    """

    def __init__(self, settings: ServerSettings, arguments: Sequence[str]) -> None:
        self._settings = settings
        self._arguments = arguments
        self._arrivals = PortArrivals(settings)
        self._shared_folder = tempfile.TemporaryDirectory(prefix="thriftpipe-")
        self._seats = [_Seat(index) for index in range(settings.workers)]
        # Accepted, but the worker that was to have it died.
        self._waiting: deque[Arrival] = deque()
        self._handed_out = 0
        self._stop_reason = ""
        self._draining = False
        self._failure: WorkerError | None = None
        self._cut_off = 0
        self._selector = selectors.DefaultSelector()
        self._wake = Wake()
        self._selector.register(self._wake.receiver, selectors.EVENT_READ)
        self.ready = False

    @property
    def wakeup_fd(self) -> int:
        """Descriptor for `signal.set_wakeup_fd`, so that a signal is never overlooked."""
        return self._wake.fd

    def run(self) -> int:
        """Start up, serve until stopped, drain.

        Returns:
            How many requests were cut off unfinished; 0 after an orderly stop.

        Raises:
            WorkerError: a worker cannot be started; the others have drained.
            OSError: the address cannot be had.
        """
        try:
            self.startup()
            self.serve()
            cut_off = self.drain()
            if self._failure is not None:
                raise self._failure
            return cut_off
        finally:
            self.shutdown()

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(self, *exception: object) -> None:
        self._selector.close()
        self._wake.close()
        self._shared_folder.cleanup()

    def startup(self) -> None:
        """Take the port, wait until all workers are warm, then let clients in."""
        adopt_orphans()
        self._arrivals.open()
        # The first one alone: what it prepares and keeps in files, such as a built engine, is
        # there for the others then, and a setting that cannot work is told once.
        for warm in (1, len(self._seats)):
            for seat in self._seats[:warm]:
                if seat.worker is None:
                    seat.start_at_s = time.monotonic()
            while not self._stop_reason and len(self._serving()) < warm:
                self._turn()
            if self._failure is not None:
                raise self._failure
            if self._stop_reason:
                return
        running = self._serving()[0].running
        # First, since whoever reads that it is ready may stop it at once.
        self.ready = True
        self._arrivals.let_in(self._selector, f"{running} in {len(self._seats)} workers")

    def serve(self) -> None:
        """Hand out connections and replace workers until `stop` is called, and for `unready_s`."""
        while not self._stop_reason:
            self._turn()
            self._hand_out()
        if not self._settings.unready_s:
            return
        _log.info(
            "stopping (%s): not ready, and serving on for --unready-s = %s",
            self._stop_reason,
            self._settings.unready_s,
        )
        for worker in self._serving():
            worker.announce_stop(self._stop_reason)
        end_s = time.monotonic() + self._settings.unready_s
        while time.monotonic() < end_s:
            self._turn(end_s)
            self._hand_out()

    def stop(self, reason: str = "stop was called") -> None:
        """Let `serve` return. Safe in any thread and in a signal handler."""
        self._stop_reason = reason
        self._wake.set()

    def drain(self) -> int:
        """Let all workers finish their requests, for `drain_timeout_s` at most.

        Returns:
            How many requests were cut off unfinished.
        """
        self._draining = True
        self._arrivals.close()
        self._drop_waiting()
        _log.info("stopping (%s): %d workers drain", self._stop_reason, len(self._serving()))
        for seat in self._seats:
            seat.start_at_s = None
        for worker in self._workers():
            if worker.running:
                worker.stop(self._stop_reason)
            else:
                worker.kill()
        deadline_s = time.monotonic() + self._settings.drain_timeout_s + _LEAVING_S
        while self._workers() and time.monotonic() < deadline_s:
            self._turn(deadline_s)
        for worker in self._workers():
            _log.error("worker with pid %d does not end; it is killed", worker.pid)
            self._cut_off += max(1, worker.connections)
        return self._cut_off

    def shutdown(self) -> None:
        """Free the port; no worker is left, nor anything that a worker has started."""
        self.ready = False
        self._arrivals.close()
        self._drop_waiting()
        for worker in self._workers():
            worker.kill()
        for seat in self._seats:
            if seat.worker is not None:
                self._collect(seat, seat.worker)
        for pid in wait_for_children(_LEAVING_S):
            _log.error("process %d, which a worker had started, did not end and was killed", pid)

    def _turn(self, deadline_s: float | None = None) -> None:
        """Wait for something to happen, and deal with it; until `deadline_s` at most."""
        due_s = [seat.start_at_s for seat in self._seats if seat.start_at_s is not None]
        wake_at_s = min([*due_s, *([] if deadline_s is None else [deadline_s])], default=None)
        wait_s = None if wake_at_s is None else max(0.0, wake_at_s - time.monotonic())
        for key, _ in self._selector.select(wait_s):
            if key.fileobj is self._wake.receiver:
                self._wake.clear()
            elif isinstance(key.data, _Seat):
                self._hear(key.data)
            elif (arrival := self._arrivals.accept()) is not None:
                self._waiting.append(arrival)
        for seat in self._seats:
            if seat.start_at_s is not None and seat.start_at_s <= time.monotonic():
                self._start(seat)

    def _start(self, seat: _Seat) -> None:
        seat.start_at_s = None
        try:
            seat.worker = WorkerProcess(
                seat.index, len(self._seats), self._arguments, self._shared_folder.name
            )
        except OSError as error:
            self._start_failed(seat, f"cannot be started: {error.strerror}", None)
            return
        self._selector.register(seat.worker.control, selectors.EVENT_READ, seat)

    def _hear(self, seat: _Seat) -> None:
        """Take one message of a worker, or notice its end."""
        worker = seat.worker
        if worker is None:
            return
        message = worker.control.receive()
        if message is None:
            self._bury(seat, worker)
            return
        said = message.content
        if "running" in said:
            worker.running = said["running"]
            seat.failed_starts = 0
            if self._stop_reason:
                worker.announce_stop(self._stop_reason)
            _log.info("worker %d is warm (pid %d)", seat.index, worker.pid)
        elif "taken" in said:
            closed, worker.closed = worker.closed, said["closed"]
            worker.taken = said["taken"]
            self._arrivals.left(worker.closed - closed)
        elif "failed" in said:
            worker.failure = StartFailure(said["failed"], said["exit_code"])
        elif "cut_off" in said:
            worker.cut_off = said["cut_off"]

    def _bury(self, seat: _Seat, worker: WorkerProcess) -> None:
        """A worker has ended: see to its connections, and to its successor."""
        # It may be on its way out still, or have closed its end without leaving.
        worker.kill()
        status = self._collect(seat, worker)
        self._arrivals.left(worker.connections)
        if self._draining:
            lost = worker.cut_off
            if lost is None and worker.running:
                _log.error("worker %d ended while it drained (%s)", seat.index, status)
                lost = max(1, worker.connections)
            self._cut_off += lost or 0
        elif worker.running:
            reason = status if worker.failure is None else worker.failure.line
            _log.error(
                "worker %d (pid %d) ended with %d connections, and another takes its place: %s",
                seat.index,
                worker.pid,
                worker.connections,
                reason,
            )
            seat.start_at_s = time.monotonic()
        else:
            self._start_failed(seat, f"ended before it was ready ({status})", worker.failure)

    def _start_failed(self, seat: _Seat, how: str, failure: StartFailure | None) -> None:
        """Try again a little later, or give the server up."""
        seat.failed_starts += 1
        if failure is not None and not self.ready:
            # Its settings cannot work: the next attempt would say the same.
            self._give_up(seat, failure)
        elif seat.failed_starts <= len(_PAUSES_S):
            pause_s = _PAUSES_S[seat.failed_starts - 1]
            reason = how if failure is None else failure.line
            _log.error("worker %d: %s; the next attempt is in %g s", seat.index, reason, pause_s)
            seat.start_at_s = time.monotonic() + pause_s
        else:
            line = (
                f"worker {seat.index} {how}, {seat.failed_starts} times in a row; "
                "the log above has what it said"
            )
            self._give_up(seat, failure or StartFailure(line, 1))

    def _give_up(self, seat: _Seat, failure: StartFailure) -> None:
        self._failure = WorkerError(failure)
        self.stop(f"worker {seat.index} cannot be started")

    def _collect(self, seat: _Seat, worker: WorkerProcess) -> str:
        self._selector.unregister(worker.control)
        seat.worker = None
        return worker.collect()

    def _hand_out(self) -> None:
        """Give what waits to workers with room; without one, let clients wait in the kernel."""
        while self._waiting and (worker := self._least_busy()) is not None:
            self._handed_out += 1
            if worker.hand(self._waiting[0], self._handed_out):
                self._waiting.popleft()
        if self._least_busy() is None:
            self._arrivals.hold()
        else:
            self._arrivals.release()

    def _least_busy(self) -> WorkerProcess | None:
        """The worker with the fewest connections; of equals, the one that got none for longest."""
        return min(
            (worker for worker in self._workers() if worker.has_room),
            key=lambda worker: (worker.connections, worker.last_handed),
            default=None,
        )

    def _workers(self) -> list[WorkerProcess]:
        return [seat.worker for seat in self._seats if seat.worker is not None]

    def _serving(self) -> list[WorkerProcess]:
        return [worker for worker in self._workers() if worker.running]

    def _drop_waiting(self) -> None:
        for arrival in self._waiting:
            arrival.sock.close()
        self._waiting.clear()
