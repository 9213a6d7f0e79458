"""A worker as its supervisor sees it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from engine.cpu import CORES_VARIABLE, available_cores
from service.arrivals import Arrival
from service.control import ControlChannel
from service.placement import share_of_cores
from service.signals import held_back

SHARED_FOLDER_VARIABLE = "THRIFTPIPE_SHARED_FOLDER"
# A worker that does not even take what it was given gets no more.
_MOST_UNTAKEN = 16


@dataclass(frozen=True)
class StartFailure:
    """Why a worker could not start.

    Attributes:
        line: the error, for the user.
        exit_code: that of a server that fails for this reason.
    """

    line: str
    exit_code: int


class WorkerProcess:
    """One process that runs `service.worker`, started at once.

    Args:
        index: its number, from 0.
        workers: how many there are.
        arguments: the server's own command line.
        shared_folder: a folder that all workers have in common.

    Attributes:
        control: the line to it.
        running: what runs in it, in words; empty until it is ready for connections.
        failure: why it could not start, if it said so.
        cut_off: requests that it cut off; None until it has drained.
        handed: connections that it was given.
        last_handed: when it was given the last one, as a count of all that the server gave out.
        taken: those of them that it has taken up.
        closed: those of them that are closed.
    """

    def __init__(
        self, index: int, workers: int, arguments: Sequence[str], shared_folder: str
    ) -> None:
        self.control, theirs = ControlChannel.pair()
        self.running = ""
        self.failure: StartFailure | None = None
        self.cut_off: int | None = None
        self.handed = 0
        self.last_handed = 0
        self._gone = False
        self.taken = 0
        self.closed = 0
        command = [sys.executable, "-m", "service.worker", str(theirs.fileno()), str(index)]
        cores = share_of_cores(available_cores(), workers)
        try:
            # A signal for all of the server must not end it before it can know better.
            with held_back():
                self._process = subprocess.Popen(  # noqa: S603 (the server's own command line)
                    [*command, *arguments],
                    stdin=subprocess.DEVNULL,
                    env={
                        **os.environ,
                        CORES_VARIABLE: str(cores),
                        SHARED_FOLDER_VARIABLE: shared_folder,
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
    def connections(self) -> int:
        """How many of its connections are open."""
        return self.handed - self.closed

    @property
    def has_room(self) -> bool:
        """Whether it may get another connection."""
        untaken = self.handed - self.taken
        return bool(self.running) and not self._gone and untaken < _MOST_UNTAKEN

    def hand(self, arrival: Arrival, count: int) -> bool:
        """Give it a connection, which from then on is its own; False where the worker is gone.

        Args:
            arrival: the connection.
            count: the value of `last_handed` from now on.
        """
        if not self.control.send({"peer": arrival.peer}, arrival.sock):
            self._gone = True
            return False
        self.handed += 1
        self.last_handed = count
        arrival.sock.close()
        return True

    def stop(self, reason: str) -> None:
        """Let it drain what it has and end."""
        self.control.send({"stop": reason})

    def announce_stop(self, reason: str) -> None:
        """Let it say that it is not ready, and go on."""
        self.control.send({"stop_ahead": reason})

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    def collect(self) -> str:
        """Wait for its end, which must be under way; how it ended, in words."""
        self.control.close()
        status = self._process.wait()
        if status < 0:
            return f"killed by {signal.Signals(-status).name}"
        return f"exit code {status}"
