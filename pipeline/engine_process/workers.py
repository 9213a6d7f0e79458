"""The workers that are connected to the engine process, and what all of them are told."""

from __future__ import annotations

import logging
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pipeline.engine_process.connected_worker import Worker
from pipeline.engine_process.engine_facts import EngineFacts
from pipeline.engine_process.status_slot import Pulse
from pipeline.runtime.task import Task

logger = logging.getLogger(__name__)

# The worker that started this process connects at once.
_FIRST_CONNECTION_S = 60.0
# After an accept that failed, such as for lack of descriptors.
_ACCEPT_PAUSE_S = 1.0


class Workers:
    """All that are connected; the first one's greeting is what starts the engine process."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._workers: dict[int, Worker] = {}
        self._next_number = 0
        self._telling = threading.Lock()
        self._why_not_ready: Callable[[], str] = lambda: ""
        self._suspect_done: Callable[[Task], None] = lambda _: None
        self._counts: Callable[[], bytes] = bytes
        self._told = ""
        self._beats = 0
        self._loads = 0

    def follow(
        self,
        why_not_ready: Callable[[], str],
        suspect_done: Callable[[Task], None],
        counts: Callable[[], bytes] = bytes,
    ) -> None:
        """Begin, before the first worker connects.

        Args:
            why_not_ready: what every worker is told now, and whenever `tell` is called.
            suspect_done: called with a suspect's task once its worker knows the outcome.
            counts: what this process has counted, which goes with each heartbeat.
        """
        self._counts = counts
        self._why_not_ready = why_not_ready
        self._suspect_done = suspect_done

    def tell(self) -> None:
        """Tell all of them why no results come, or that they come again; from any thread."""
        with self._telling:
            self._told = self._why_not_ready()
            for worker in list(self._workers.values()):
                worker.tell(self._told)

    def beat(self, pause_s: float) -> None:
        """Give all of them signs of life without end, and tell what time alone has changed."""
        while True:
            self._beat(counts=self._counts())
            if self._why_not_ready() != self._told:
                self.tell()
            time.sleep(pause_s)

    @contextmanager
    def loading(self) -> Iterator[None]:
        """While an instance loads, which may keep the interpreter's lock: expect no heartbeats."""
        self._beat(1)
        try:
            yield
        finally:
            self._beat(-1)

    def _beat(self, more_loads: int = 0, counts: bytes = b"") -> None:
        with self._telling:
            self._loads += more_loads
            self._beats += 1
            for worker in list(self._workers.values()):
                worker.beat(self._pulse, counts)

    @property
    def _pulse(self) -> Pulse:
        return Pulse(self._beats, self._loads > 0)

    def task(self, worker: int, slot: int) -> Task | None:
        """The item in a worker's slot, or None if that worker has gone."""
        connected = self._workers.get(worker)
        return None if connected is None else connected.task(slot)

    def serve(self, facts: EngineFacts, submissions: int) -> None:
        """Welcome workers until the last one has hung up.

        Args:
            facts: what they are told.
            submissions: descriptor of the pipe that they are given.
        """
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            while ready := selector.select(None if self._workers else _FIRST_CONNECTION_S):
                for key, _ in ready:
                    worker: Worker | None = key.data
                    if worker is not None:
                        # All that a worker ever says after its greeting is its end.
                        selector.unregister(worker)
                        del self._workers[worker.number]
                        worker.close()
                    elif (new := self._accept()) is not None and self._add(new, facts, submissions):
                        selector.register(new, selectors.EVENT_READ, new)
                if not self._workers:
                    return

    def turn_away(self, reason: str) -> None:
        """Tell the worker that started this process why it ends."""
        self._listener.settimeout(_FIRST_CONNECTION_S)
        worker = self._accept()
        if worker is not None:
            try:
                worker.turn_away(reason)
            except EOFError:
                logger.debug("a worker that is gone was not told: %s", reason)
            worker.close()

    def _add(self, worker: Worker, facts: EngineFacts, submissions: int) -> bool:
        """Welcome a worker; False if it has hung up."""
        try:
            # Before the welcome, upon which it may submit items at once.
            with self._telling:
                self._workers[worker.number] = worker
                worker.tell(self._why_not_ready())
                worker.beat(self._pulse, self._counts())
            worker.welcome(facts, submissions)
        except (EOFError, OSError) as error:
            logger.warning("a worker hung up at once: %s", error)
            del self._workers[worker.number]
            worker.close()
            return False
        return True

    def _accept(self) -> Worker | None:
        try:
            sock, _ = self._listener.accept()
        except OSError as error:
            logger.error("cannot take a worker now, tried again in a second: %s", error.strerror)
            time.sleep(_ACCEPT_PAUSE_S)
            return None
        number, self._next_number = self._next_number, self._next_number + 1
        try:
            return Worker(sock, number, self._suspect_done)
        except (EOFError, OSError) as error:
            logger.warning("a worker hung up at once: %s", error)
            sock.close()
            return None
