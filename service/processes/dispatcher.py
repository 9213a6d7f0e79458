"""The connections of one port, handed to several workers.

The supervisor accepts connections and hands each to the worker with the fewest, through a Unix
socket; what is said on a connection never passes through it. Sharing the port by SO_REUSEPORT
instead would spread connections by chance, and Thrift clients keep theirs: the fullest worker would
decide the tail latency; it would also let other programs join the port, and lose the connections
that wait for a worker that died. Node.js's cluster module hands accepted sockets to its processes
in the same way.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable

from service.accepting.listener import Arrival, PortListener
from service.processes.worker_process import WorkerProcess

_log = logging.getLogger(__name__)


class Dispatcher:
    """Accepts connections, and keeps each until a worker has taken it up.

    Args:
        listener: has the port.
        workers: gives the workers that there are.
    """

    def __init__(
        self, listener: PortListener, workers: Callable[[], Iterable[WorkerProcess]]
    ) -> None:
        self._listener = listener
        self._workers = workers
        # Accepted, but not handed over: no worker has room, or the one that was to have it died.
        self._waiting: deque[Arrival] = deque()
        self._handed_out = 0

    def accept(self) -> None:
        """Accept the connection that the port tells of, if it is still there."""
        if (arrival := self._listener.accept()) is not None:
            self._waiting.append(arrival)

    def hand_out(self) -> None:
        """Give what waits to workers with room; without one, let clients wait in the kernel."""
        while self._waiting and (worker := self._least_busy()) is not None:
            self._handed_out += 1
            try:
                if worker.hand(self._waiting[0], self._handed_out):
                    self._waiting.popleft()
            except OSError as error:
                _log.warning("cannot hand a connection over now: %s", error.strerror)
                break
        if self._least_busy() is None:
            self._listener.hold()
        else:
            self._listener.release()

    def take_back(self, worker: WorkerProcess) -> int:
        """Keep what an ended worker had not taken up; how many connections are lost with it."""
        lost = worker.connections - len(worker.untaken)
        self._waiting.extendleft(reversed(worker.untaken))
        untaken_reserve = sum(arrival.is_reserve for arrival in worker.untaken)
        self._listener.count_closed(lost, worker.reserve - untaken_reserve)
        return lost

    def drop_waiting(self) -> None:
        """Close the connections that no worker has."""
        for arrival in self._waiting:
            arrival.sock.close()
        self._waiting.clear()

    def _least_busy(self) -> WorkerProcess | None:
        """The worker with the fewest connections; of equals, the one that got none for longest.

        One that owes a sign of life comes last.
        """
        return min(
            (worker for worker in self._workers() if worker.has_room),
            key=lambda one: (one.missed_beats > 0, one.connections, one.last_handed),
            default=None,
        )
