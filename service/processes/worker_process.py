"""A worker as its supervisor sees it."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections import deque
from pathlib import Path

from engine.cpu.cores import CORES_VARIABLE, available_cores
from interfaces.stats import Stats
from service.accepting.listener import Arrival, DrainNotice, StopRequest
from service.options.given import GivenOptions
from service.processes.control_channel import ControlChannel
from service.processes.exit_reasons import how_it_ended, oom_kills
from service.processes.heartbeats import BEATS
from service.processes.placement import share_of_cores
from service.processes.process import DYING_S
from service.processes.service_manager import SOCKET_VARIABLE
from service.processes.signals import STACKS_OF_THE_HUNG, held_back
from service.processes.stats_report import encode_stats, file_with
from service.processes.worker_messages import (
    WORKER_MESSAGES,
    ConnectionCounts,
    HeartbeatRequest,
    NewConnection,
    StartFailure,
    WholeStats,
)

_log = logging.getLogger(__name__)

SHARED_FOLDER_VARIABLE = "THRIFTPIPE_SHARED_FOLDER"
WHY_SO_MANY_VARIABLE = "THRIFTPIPE_WHY_SO_MANY_WORKERS"
OPTIONS_GIVEN_VARIABLE = "THRIFTPIPE_OPTIONS_GIVEN"
# A worker that does not even take what it was given gets no more.
_MOST_UNTAKEN = 16


class WorkerProcess:
    """One process that runs `service.worker`, started at once.

    Args:
        index: as the attribute.
        workers: how many there are.
        why: why there are so many, in words.
        given: the server's own options.
        shared_folder: a folder that all workers have in common.

    Attributes:
        index: its number, from 0.
        control: the channel to it.
        running: what runs in it, in words; empty until it is ready for connections.
        failure: why it could not start, if it said so.
        cut_off: requests that it cut off; None until it has drained.
        handed: connections that it was given.
        last_handed: when it was given the last one, as a count of all that the server gave out.
        untaken: those of them that it has not taken up: nothing has been read from them.
        closed: those of them that are closed.
        reserve: reserve connections that it was given and that are not closed.
        missed_beats: how many beats it has let pass since the one that it has not answered.
    """

    def __init__(
        self, index: int, workers: int, why: str, given: GivenOptions, shared_folder: Path
    ) -> None:
        self.index = index
        self.control, theirs = ControlChannel.pair(WORKER_MESSAGES)
        self.running = ""
        self.failure: StartFailure | None = None
        self.cut_off: int | None = None
        self.handed = 0
        self.last_handed = 0
        self._gone = False
        self.untaken: deque[Arrival] = deque()
        self.closed = 0
        self.reserve = 0
        self._closed_reserve = 0
        self.missed_beats = 0
        self._is_asked = False
        self._oom_kills = oom_kills()
        command = [sys.executable, "-m", "service.worker", str(theirs.fileno()), str(index)]
        cores = share_of_cores(available_cores(), workers)
        try:
            # A signal for all of the server must not end it before it can know better.
            with held_back():
                self._process = subprocess.Popen(  # noqa: S603 (the server's own command line)
                    [*command, *given.words, "--workers", str(workers)],
                    stdin=subprocess.DEVNULL,
                    env={
                        **{k: v for k, v in os.environ.items() if k != SOCKET_VARIABLE},
                        CORES_VARIABLE: str(cores),
                        SHARED_FOLDER_VARIABLE: str(shared_folder),
                        WHY_SO_MANY_VARIABLE: why,
                        OPTIONS_GIVEN_VARIABLE: str(given),
                    },
                    pass_fds=[theirs.fileno()],
                )
        except OSError:
            self.control.close()
            raise
        finally:
            theirs.close()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        """Whether its process has; its channel may be held open by a process that it has forked."""
        return self._process.poll() is not None

    @property
    def hangs(self) -> bool:
        """Whether it has given no sign of life for too long."""
        return self.missed_beats >= BEATS

    @property
    def connections(self) -> int:
        """How many of its connections are open."""
        return self.handed - self.closed

    @property
    def has_room(self) -> bool:
        """Whether it may get another connection."""
        return bool(self.running) and not self._gone and len(self.untaken) < _MOST_UNTAKEN

    def hand(self, arrival: Arrival, count: int) -> bool:
        """Give it a connection, its own once it has taken it up; False where the worker is gone.

        Args:
            arrival: the connection.
            count: the value of `last_handed` from now on.
        """
        content = NewConnection(arrival.address, arrival.is_reserve)
        if not self.control.send(content, [arrival.sock.fileno()]):
            self._gone = True
            return False
        self.handed += 1
        self.reserve += arrival.is_reserve
        self.last_handed = count
        self.untaken.append(arrival)
        return True

    def update_counts(self, counts: ConnectionCounts) -> tuple[int, int]:
        """Take up the worker's own counts.

        Returns:
            How many connections it has closed since its last report, and how many reserve ones.
        """
        while self.handed - len(self.untaken) < counts.taken:
            self.untaken.popleft().sock.close()
        more, self.closed = counts.closed - self.closed, counts.closed
        more_reserve = counts.closed_reserve - self._closed_reserve
        self._closed_reserve = counts.closed_reserve
        self.reserve -= more_reserve
        return more, more_reserve

    def beat(self) -> bool:
        """Ask it for a sign of life; one that has owed it for too long hangs, and is killed.

        Its stacks are written into the log before that, if it still can.

        Returns:
            Whether it counts as ended, although the kernel has not ended it.
        """
        if not self._is_asked:
            self._is_asked = self.control.send(HeartbeatRequest())
            return False
        self.missed_beats += 1
        if self.missed_beats == BEATS - 1:
            self._process.send_signal(STACKS_OF_THE_HUNG)
        elif self.missed_beats == BEATS:
            # Its channel breaks then; what it sent before can still be read.
            self.kill()
        return self.missed_beats == 2 * BEATS

    def shows_life(self) -> None:
        """It has sent a message."""
        self._is_asked = False
        self.missed_beats = 0

    def stop(self, reason: str) -> None:
        """Let it drain what it has and end."""
        self.control.send(StopRequest(reason))

    def announce_stop(self, reason: str) -> None:
        """Let it say that it is not ready, and go on."""
        self.control.send(DrainNotice(reason))

    def tell_stats(self, stats: Stats) -> None:
        """Answer what it has asked, unless it has ended meanwhile.

        Args:
            stats: the whole server's.
        """
        if self.control.fileno() < 0:
            return
        try:
            fd = file_with(encode_stats(stats))
            try:
                self.control.send(WholeStats(), [fd])
            finally:
                os.close(fd)
        except OSError as error:
            _log.warning("cannot send the stats to a worker: %s", error.strerror)

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    def reap(self) -> str:
        """Wait for its end, which must be under way; how it ended, in words."""
        self.control.close()
        try:
            return how_it_ended(self._process.wait(DYING_S), self._oom_kills)
        except subprocess.TimeoutExpired:
            # Popen takes it out of the process table once it has ended.
            return "killed, but the kernel has not ended it"
