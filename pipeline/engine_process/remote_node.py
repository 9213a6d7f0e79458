"""A node that runs in the engine process, as the pipeline in a worker sees it."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from interfaces.error_text import in_one_line
from interfaces.stats import Stats
from pipeline.engine_process import semaphore
from pipeline.engine_process.engine_connection import EngineConnection
from pipeline.engine_process.engine_facts import EngineFacts
from pipeline.engine_process.pending_items import PendingItem, PendingItems
from pipeline.engine_process.slots import RemoteError, SlotLimits
from pipeline.errors import ClosedError, DeadlinePassedError, NodeError, PipelineConfigError
from pipeline.runtime.task import Task
from service.handlers.handler_settings import HandlerSettings
from service.handlers.restart_policy import DEFAULT_POLICY, RestartPolicy

logger = logging.getLogger(__name__)

_DEFAULT_LIMITS = SlotLimits()
_RESTARTED = "the engine process is being restarted"
_ENDED = "the engine process ended while it started; the log above has what it said"
_CAN_FETCH = semaphore.available()
# Engine processes that may end while they work on an item: it may be what ends them.
_MOST_TRIES = 2
# Attempts to restart it for which items wait; while further ones are made, they fail at once.
_PATIENT_ATTEMPTS = 3


class RemoteNode:
    """Hands items to the engine process and takes their results.

    If that process ends, or hangs and is killed, its items wait for the next process, as long as
    their deadlines allow. Items that it had begun are suspects: the next process runs them one at a
    time, so that an item which ends the process takes no other with it. An item that was begun in
    two processes which ended fails.

    Args:
        name: the node's name; it is the first of those that run there.
        connect_to: finds or starts the engine process; gives a socket connected to it, and its
            process id.
        limits: of the memory shared with that process.
        hang_timeout_s: how long that process may give no sign of life before it is killed; 0 for no
            limit.
        policy: its pauses are those between attempts to restart it.

    Attributes:
        facts: what runs in that process; set by `start`.
    """

    def __init__(
        self,
        name: str,
        connect_to: Callable[[], tuple[socket.socket, int]],
        limits: SlotLimits = _DEFAULT_LIMITS,
        hang_timeout_s: float = HandlerSettings().hang_timeout_s,
        policy: RestartPolicy = DEFAULT_POLICY,
    ) -> None:
        self.name = name
        self.facts: EngineFacts
        self._connect_to = connect_to
        self._limits = limits
        self._hang_timeout_s = hang_timeout_s
        self._policy = policy
        self._lock = threading.Lock()
        self._connection: EngineConnection | None = None
        self._opening: EngineConnection | None = None
        # While there is no connection: what waits for one, and why nothing does any more.
        self._pending = PendingItems()
        self._refusal: Exception | None = None
        # The last ones of the engine process.
        self._stats = Stats()
        self._stopped = threading.Event()
        self._listener = threading.Thread(target=self._listen, name=f"{name}-remote", daemon=True)

    def start(self) -> None:
        """Connect; PipelineConfigError says why what is to run there cannot."""
        self._connection = self._open()
        self._listener.start()

    def submit(
        self,
        task: Task,
        *,
        caller_waits: bool = False,
        wakes: bool = True,  # noqa: ARG002 (the other process's threads have nothing else to do)
    ) -> None:
        """Hand one item over; if the caller waits for it alone, wait here until it is done.

        While the engine process is being restarted, the item is kept for the next one.
        """
        self._hand_over(PendingItem(task, 0), fetch=caller_waits)

    def why_not_ready(self) -> str:
        """Why the engine process gives no results; "" where it does."""
        connection = self._connection
        return (
            f"node {self.name!r}: {_RESTARTED}" if connection is None else connection.why_not_ready
        )

    def stats(self) -> Stats:
        """What the engine process has done for all workers; after its end, what it last told."""
        with self._lock:
            if self._connection is not None:
                self._stats = self._connection.stats
                return self._stats
            process = self._stats.engine_process
            gone = None if process is None else replace(process, alive=False)
            # So many are still wanted.
            nodes = {
                name: replace(node, working_instances=0, stuck_instances=0)
                for name, node in self._stats.nodes.items()
            }
            return replace(self._stats, nodes=nodes, engine_process=gone)

    def stop(self) -> None:
        """Hang up; nothing is under way any more."""
        self._stopped.set()
        with self._lock:
            for connection in (self._connection, self._opening):
                if connection is not None:
                    connection.hang_up()
        if self._listener.ident is not None:
            self._listener.join()
        self._refuse(ClosedError("the pipeline is closed"))

    def _hand_over(self, item: PendingItem, *, fetch: bool) -> None:
        while True:
            with self._lock:
                connection = self._connection
            if connection is None:
                if self._keep(item):
                    return
            elif connection.submit(item, fetch=fetch and _CAN_FETCH):
                return
            else:
                self._leave(connection)

    def _keep(self, item: PendingItem) -> bool:
        """Let an item wait for the next engine process; False if there is one already."""
        overdue: list[Task] = []
        with self._lock:
            if self._connection is not None:
                return False
            refusal = self._refusal
            if refusal is None:
                overdue = self._pending.take_overdue(time.monotonic())
                self._pending.put(item)
        if refusal is not None:
            item.task.finish(NodeError(self.name, refusal))
        for task in overdue:
            passed = DeadlinePassedError("dropped while the engine process was being restarted")
            task.finish(NodeError(self.name, passed))
        return True

    def _keep_again(self, item: PendingItem) -> None:
        """Let an item wait that the engine process had, unless it was its last try."""
        if item.tries < _MOST_TRIES:
            self._keep(item)
            return
        error = RemoteError(
            f"the engine process ended while it worked on this item, {item.tries} times; "
            "it is not tried again"
        )
        item.task.finish(NodeError(self.name, error))

    def _refuse(self, error: Exception) -> None:
        """Fail what waits for an engine process, and what comes while there is none."""
        failed = []
        with self._lock:
            self._refusal = error
            while (item := self._pending.take()) is not None:
                failed.append(item.task)
        for task in failed:
            task.finish(NodeError(self.name, error))

    def _open(self) -> EngineConnection:
        """A connection to an engine process that is ready; PipelineConfigError if there is none."""
        try:
            sock, pid = self._connect_to()
            try:
                connection = EngineConnection(
                    self.name, sock, pid, self._limits, self._hang_timeout_s
                )
            except BaseException:
                sock.close()
                raise
        except ProcessLookupError as error:
            raise PipelineConfigError(_ENDED) from error
        except OSError as error:
            raise PipelineConfigError(f"no engine process can be started: {error}") from error
        with self._lock:
            self._opening = connection
            if self._stopped.is_set():
                connection.hang_up()
        try:
            self.facts = connection.greet()
        except (EOFError, OSError) as error:
            self._end(connection)
            raise PipelineConfigError(_ENDED) from error
        except BaseException:
            connection.close()
            raise
        finally:
            with self._lock:
                self._opening = None
        return connection

    def _listen(self) -> None:
        """Take results from one engine process after the other; nothing else ends this thread."""
        while not self._stopped.is_set():
            connection = self._connection
            if connection is None:
                self._reconnect()
                continue
            try:
                lost = connection.serve()
            except BaseException:
                logger.exception("%s: an error that nothing expected", self.name)
                lost = connection.end()
            self._leave(connection)
            for item in lost:
                self._keep_again(item)
            self._end(connection)

    def _end(self, connection: EngineConnection) -> None:
        """Close a connection whose other end is gone, or has been left for good."""
        if not self._stopped.is_set():
            connection.wait_for_end()
        connection.close()

    def _leave(self, connection: EngineConnection) -> None:
        """Use that connection no more."""
        with self._lock:
            if self._connection is connection:
                self._connection, self._stats = None, connection.stats

    def _reconnect(self) -> None:
        logger.error("%s: the engine process ended; looking for another one", self.name)
        attempts = 0
        while not self._stopped.is_set():
            attempts += 1
            try:
                connection = self._open()
            except BaseException as error:  # noqa: BLE001 (tried again, whatever it is)
                if self._stopped.is_set():
                    return
                pause_s = self._policy.wait_s(attempts)
                told = in_one_line(error)
                logger.error(
                    "%s: attempt %d to reach one failed, and the next follows in %g s: %s",
                    self.name,
                    attempts,
                    pause_s,
                    told,
                )
                if attempts >= _PATIENT_ATTEMPTS:
                    self._refuse(RemoteError(f"{_RESTARTED}, so far without success: {told}"))
                self._stopped.wait(pause_s)
                continue
            with self._lock:
                self._connection, self._refusal = connection, None
            logger.info("%s: the engine process is there again", self.name)
            threading.Thread(
                target=self._hand_over_pending, name=f"{self.name}-pending", daemon=True
            ).start()
            return

    def _hand_over_pending(self) -> None:
        """Send the items that have waited for an engine process."""
        while True:
            with self._lock:
                item = None if self._connection is None else self._pending.take()
            if item is None:
                return
            self._hand_over(item, fetch=False)
