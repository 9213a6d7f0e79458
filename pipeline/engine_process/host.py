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
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from engine.interface import EngineError
from pipeline.backends.inference import ENGINE, ENGINE_BACKEND
from pipeline.config import parse_config
from pipeline.engine_facts import EngineFacts
from pipeline.engine_process.messages import SlotNumbers, receive_object, send_object
from pipeline.engine_process.slots import SlotMemory
from pipeline.engine_process.split import back_part
from pipeline.errors import PipelineConfigError
from pipeline.pipe import Pipe
from pipeline.task import Call, Task
from service.process import leave, log_to_stderr
from service.signals import leave_stop_to_supervisor

logger = logging.getLogger(__name__)

# Whoever started this process connects at once.
_FIRST_CONNECTION_S = 60.0


class RemoteCall(Call):
    """Stands in for the call of an item that came from a worker."""

    __slots__ = ("_slot", "_worker", "after_batch", "deadline_s")

    def __init__(self, worker: Worker, slot: int, deadline_s: float | None) -> None:
        self._worker = worker
        self._slot = slot
        self.deadline_s = deadline_s
        self.after_batch = worker.flush

    def item_done(self, task: Task) -> None:
        """Put the outcome where the item was."""
        self._worker.put(self._slot, task)


class Worker:
    """A connected worker and the memory that it shares.

    Attributes:
        entry: the node at which its items enter.
    """

    def __init__(self, sock: socket.socket) -> None:
        greeting, fds = receive_object(sock, max_fds=1)
        shape = greeting["slots"]
        self.entry: str = greeting["node"]
        self._socket = sock
        self._memory = SlotMemory(fds[0], shape["count"], shape["slot_bytes"])
        self._numbers = SlotNumbers(sock)
        self._lock = threading.Lock()
        self._done = array("I")
        self._closed = False

    def fileno(self) -> int:
        """The connection's descriptor, for selectors."""
        return self._socket.fileno()

    def receive(self) -> list[Task]:
        """The items whose slot numbers have arrived; EOFError once the worker has hung up."""
        tasks = []
        for slot in self._numbers.receive():
            item, deadline_s = self._memory.item(slot)
            tasks.append(Task(item, RemoteCall(self, slot, deadline_s)))
        return tasks

    def put(self, slot: int, task: Task) -> None:
        """Leave an outcome in its slot; `flush` tells the worker. One that is gone gets none."""
        with self._lock:
            if not self._closed:
                self._memory.put_outcome(slot, task.item, task.error, task.stage_times_ms)
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


def main(arguments: Sequence[str]) -> int:
    """Serve workers until the last has hung up.

    Returns:
        The exit code: 0, or 2 if the nodes cannot run, which every worker that connects is told.
    """
    leave_stop_to_supervisor()
    settings = json.load(sys.stdin)
    log_to_stderr(settings["log_level"], "engine process ")
    listener = socket.socket(fileno=int(arguments[0]))
    config = parse_config(settings["document"])
    try:
        with Pipe(back_part(config, settings["entry"]), engine=settings["engine"]) as pipe:
            engine = next(
                node.shared.get(ENGINE)
                for name, node in pipe.local_nodes.items()
                if ENGINE_BACKEND in config.nodes[name].backend.names()
            )
            _serve(listener, pipe, {"info": asdict(EngineFacts.of(engine))})
    except (EngineError, PipelineConfigError) as error:
        _serve(listener, None, {"failed": str(error)})
        return 2
    return 0


def _serve(listener: socket.socket, pipe: Pipe | None, greeting: dict[str, Any]) -> None:
    """Accept workers and run their items; without a pipe they are only told why."""
    workers = 0
    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        while ready := selector.select(None if workers else _FIRST_CONNECTION_S):
            for key, _ in ready:
                worker = key.data
                if worker is None:
                    worker = _greet(listener.accept()[0], greeting)
                    if worker is not None and pipe is not None:
                        selector.register(worker, selectors.EVENT_READ, worker)
                        workers += 1
                elif not _pass_on(worker, pipe):
                    selector.unregister(worker)
                    worker.close()
                    workers -= 1
            if not workers:
                return


def _greet(sock: socket.socket, greeting: dict[str, Any]) -> Worker | None:
    try:
        worker = Worker(sock)
        send_object(sock, greeting)
    except (EOFError, OSError) as error:
        logger.warning("a worker hung up at once: %s", error)
        sock.close()
        return None
    return worker


def _pass_on(worker: Worker, pipe: Pipe | None) -> bool:
    """Queue what a worker has sent; False once it has hung up."""
    try:
        tasks = worker.receive()
    except (EOFError, OSError):
        return False
    if pipe is not None:
        for task in tasks:
            pipe.nodes[worker.entry].submit(task)
    return True


if __name__ == "__main__":
    leave(main(sys.argv[1:]))
