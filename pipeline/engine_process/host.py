"""The engine process: `python -m pipeline.engine_process.host LISTENER_FD`, settings on stdin.

Only workers start it, see `finder`. It runs the nodes that the workers leave to it, for all of
them, and ends when the last one has hung up.
"""

from __future__ import annotations

import json
import logging
import selectors
import socket
import sys
import threading
from array import array
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from engine.interface import EngineError
from pipeline.backend_file import load_backends
from pipeline.backends.inference import ENGINE, ENGINE_BACKEND
from pipeline.config import parse_config
from pipeline.engine_facts import EngineFacts
from pipeline.engine_process.announced_items import AnnouncedItems
from pipeline.engine_process.messages import SlotNumbers, receive_object, send_object
from pipeline.engine_process.slots import SlotMemory
from pipeline.engine_process.split import back_part
from pipeline.errors import PipelineConfigError
from pipeline.pipe import Pipe
from pipeline.task import Call, Task
from service.heaps import share_heaps
from service.process import leave, log_to_stderr
from service.signals import leave_stop_to_supervisor

logger = logging.getLogger(__name__)

# While one instance hands on the results of a large batch, which takes only Python, another one's
# decoder asks for the interpreter's lock several times an image; the default is 5 ms.
_SWITCH_INTERVAL_S = 0.0001
# Whoever started this process connects at once.
_FIRST_CONNECTION_S = 60.0


class RemoteCall(Call):
    """Stands in for the call of an item that came from a worker."""

    __slots__ = ("_is_waited_for", "_slot", "_worker", "after_batch", "deadline_s")

    def __init__(
        self, worker: Worker, slot: int, deadline_s: float | None, *, is_waited_for: bool
    ) -> None:
        self._worker = worker
        self._slot = slot
        self._is_waited_for = is_waited_for
        self.deadline_s = deadline_s
        self.after_batch = None if is_waited_for else worker.flush

    def item_done(self, task: Task) -> None:
        """Put the outcome where the item was."""
        self._worker.put(self._slot, task, is_waited_for=self._is_waited_for)


class Worker:
    """A connected worker and the memory that it shares.

    Attributes:
        number: tells it from the others.
    """

    def __init__(self, sock: socket.socket, number: int) -> None:
        greeting, fds = receive_object(sock, max_fds=1)
        self.number = number
        self._socket = sock
        self._memory = SlotMemory(fds[0], greeting["slots"], greeting["slot_bytes"])
        self._numbers = SlotNumbers(sock)
        self._lock = threading.Lock()
        self._done = array("I")
        self._closed = False
        self._is_welcome = False
        self._status = ""

    def fileno(self) -> int:
        """The connection's descriptor, for selectors."""
        return self._socket.fileno()

    def welcome(self, answer: dict[str, Any], fds: list[int]) -> None:
        """Tell it what runs here, and where to announce items."""
        with self._lock:
            send_object(self._socket, {**answer, "worker": self.number}, fds)
            self._is_welcome = True
            if self._status:
                self._send_status()

    def tell(self, why_not_ready: str) -> None:
        """Say what keeps the nodes here from giving results; "" once nothing does."""
        with self._lock:
            self._status = why_not_ready
            if self._is_welcome and not self._closed:
                try:
                    self._send_status()
                except OSError:
                    logger.debug("a worker that is gone was not told: %s", why_not_ready)

    def _send_status(self) -> None:
        slot = self._memory.count - 1
        self._memory.put_status(slot, self._status)
        self._numbers.send(array("I", [slot]))

    def task(self, slot: int) -> Task | None:
        """The item in a slot, or None if the worker has gone."""
        with self._lock:
            if self._closed:
                return None
            item, put_at_s, deadline_s = self._memory.item(slot)
            is_waited_for = self._memory.is_waited_for(slot)
        task = Task(item, RemoteCall(self, slot, deadline_s, is_waited_for=is_waited_for))
        task.queued_at_s = put_at_s
        return task

    def put(self, slot: int, task: Task, *, is_waited_for: bool) -> None:
        """Leave an outcome in its slot. A worker that is gone gets none.

        The thread that waits at the slot is woken; where there is none, `flush` tells the worker.
        """
        with self._lock:
            if self._closed:
                return
            self._memory.put_outcome(slot, task.item, task.error, task.stage_times_ms)
            if is_waited_for:
                self._memory.semaphore(slot).post()
            else:
                self._done.append(slot)

    def flush(self) -> None:
        """Tell the worker what is done, all at once."""
        with self._lock:
            done, self._done = self._done, array("I")
            if not done:
                return
            try:
                self._numbers.send(done)
            except OSError:
                # It has hung up; nobody waits for these any more.
                logger.debug("%d results for a worker that is gone", len(done))

    def close(self) -> None:
        """Free the connection and this process's hold on the memory."""
        with self._lock:
            self._closed = True
            self._done = array("I")
            self._socket.close()
            self._memory.close()


class Workers:
    """All that are connected; the first one's greeting is what starts the engine process."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._workers: dict[int, Worker] = {}
        self._next_number = 0
        self._telling = threading.Lock()
        self._why_not_ready: Callable[[], str] = lambda: ""

    def follow(self, why_not_ready: Callable[[], str]) -> None:
        """Have every worker told what that says, now and whenever `tell` is called."""
        self._why_not_ready = why_not_ready

    def tell(self) -> None:
        """Tell all of them why no results come, or that they come again; from any thread."""
        with self._telling:
            why_not_ready = self._why_not_ready()
            for worker in list(self._workers.values()):
                worker.tell(why_not_ready)

    def task(self, worker: int, slot: int) -> Task | None:
        """The item in a worker's slot, or None if that worker has gone."""
        connected = self._workers.get(worker)
        return None if connected is None else connected.task(slot)

    def serve(self, answer: dict[str, Any], fds: list[int]) -> None:
        """Welcome workers until the last one has hung up.

        Args:
            answer: what they are told; those that are told that it `failed` are not waited for.
            fds: what they are given.
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
                    elif (new := self._accept(answer, fds)) is not None and "failed" not in answer:
                        selector.register(new, selectors.EVENT_READ, new)
                if not self._workers:
                    return

    def _accept(self, answer: dict[str, Any], fds: list[int]) -> Worker | None:
        sock, _ = self._listener.accept()
        number, self._next_number = self._next_number, self._next_number + 1
        try:
            worker = Worker(sock, number)
            if "failed" not in answer:
                # Before the welcome, upon which it may announce items at once.
                with self._telling:
                    self._workers[number] = worker
                    worker.tell(self._why_not_ready())
            worker.welcome(answer, fds)
        except (EOFError, OSError) as error:
            logger.warning("a worker hung up at once: %s", error)
            self._workers.pop(number, None)
            sock.close()
            return None
        return worker


def main(arguments: Sequence[str]) -> int:
    """Serve workers until the last has hung up.

    Returns:
        The exit code: 0, or 2 if the nodes cannot run, which every worker that connects is told.
    """
    leave_stop_to_supervisor()
    share_heaps()
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    settings = json.load(sys.stdin)
    log_to_stderr(settings["log_level"], "engine process ")
    workers = Workers(socket.socket(fileno=int(arguments[0])))
    try:
        if settings["backends"] is not None:
            load_backends(settings["backends"])
        config, entry = parse_config(settings["document"]), settings["entry"]
        with (
            AnnouncedItems(config.nodes[entry].batching_timeout_ms, workers.task) as announced,
            Pipe(
                back_part(config, entry),
                engine=settings["engine"],
                sources={entry: announced},
                readiness_changed=workers.tell,
            ) as pipe,
        ):
            workers.follow(pipe.why_not_ready)
            engine = next(
                node.shared.get(ENGINE)
                for name, node in pipe.local_nodes.items()
                if ENGINE_BACKEND in config.nodes[name].backend.names()
            )
            workers.serve({"info": asdict(EngineFacts.of(engine))}, [announced.writer])
    except (EngineError, PipelineConfigError) as error:
        workers.serve({"failed": str(error)}, [])
        return 2
    return 0


if __name__ == "__main__":
    leave(main(sys.argv[1:]))
