"""One worker, as the engine process sees it."""

from __future__ import annotations

import logging
import socket
import threading
from array import array
from collections.abc import Callable

from pipeline.engine_process.engine_facts import EngineFacts
from pipeline.engine_process.messages import (
    FROM_WORKER,
    CannotRun,
    SharedSlots,
    SlotNumbers,
    Welcome,
)
from pipeline.engine_process.slots import CALLERS, SlotMemory
from pipeline.engine_process.status_slot import Pulse
from pipeline.runtime.task import Call, Task
from service.processes.control_channel import ControlChannel

logger = logging.getLogger(__name__)


class RemoteCall(Call):
    """The call of an item that came from a worker, as this process knows it."""

    __slots__ = (
        *("_is_waited_for", "_slot", "_worker"),
        *("after_batch", "caller", "deadline_s", "is_suspect"),
    )

    def __init__(
        self,
        worker: Worker,
        slot: int,
        caller: int,
        deadline_s: float | None,
        *,
        is_waited_for: bool,
        is_suspect: bool,
    ) -> None:
        self._worker = worker
        self._slot = slot
        self._is_waited_for = is_waited_for
        self.caller = caller
        self.deadline_s = deadline_s
        self.is_suspect = is_suspect
        self.after_batch = None if is_waited_for else worker.flush

    def item_done(self, task: Task) -> None:
        """Put the outcome where the item was."""
        self._worker.put(self._slot, task, is_waited_for=self._is_waited_for)
        if self.is_suspect:
            # The next one may end this process, and must not take this outcome along.
            self._worker.flush()
            self._worker.suspect_done(task)

    def begin(self) -> None:
        """Note it where the item is."""
        self._worker.begin(self._slot)


class Worker:
    """A connected worker and the memory that it shares.

    Reading its greeting raises EOFError or OSError where it hangs up instead.

    Args:
        sock: the connection.
        number: as the attribute.
        suspect_done: called with a suspect's task once its worker knows the outcome.

    Attributes:
        number: tells it from the others.
    """

    def __init__(
        self,
        sock: socket.socket,
        number: int,
        suspect_done: Callable[[Task], None] = lambda _: None,
    ) -> None:
        self._channel = ControlChannel(sock, FROM_WORKER)
        greeting = self._channel.receive()
        if greeting is None:
            raise EOFError("it sent no greeting")
        self.number = number
        self.suspect_done = suspect_done
        shared: SharedSlots = greeting.content
        self._memory = SlotMemory(greeting.descriptor(), shared.count, shared.slot_bytes)
        self._numbers = SlotNumbers(sock)
        self._lock = threading.Lock()
        self._done = array("I")
        self._closed = False
        self._is_welcome = False
        self._status = ""
        self._status_number = shared.count - 1
        self._status_slot = self._memory.status_slot(self._status_number)

    def fileno(self) -> int:
        """The connection's descriptor, for selectors."""
        return self._channel.fileno()

    def welcome(self, facts: EngineFacts, submissions: int) -> None:
        """Tell it what runs here, and give it the pipe for submissions.

        Raises:
            EOFError, OSError: it has hung up, or there is no descriptor left.
        """
        with self._lock:
            self._send(Welcome(self.number, facts), [submissions])
            self._is_welcome = True
            if self._status:
                self._send_status()

    def turn_away(self, reason: str) -> None:
        """Tell it why nothing runs here; EOFError if it has hung up."""
        self._send(CannotRun(reason), [])

    def tell(self, why_not_ready: str) -> None:
        """Say what keeps the nodes here from giving results; "" once nothing does."""
        with self._lock:
            self._status = why_not_ready
            if self._is_welcome and not self._closed:
                try:
                    self._send_status()
                except OSError:
                    logger.debug("a worker that is gone was not told: %s", why_not_ready)

    def _send(self, message: Welcome | CannotRun, fds: list[int]) -> None:
        if not self._channel.send(message, fds):
            raise EOFError("it does not listen any more")

    def _send_status(self) -> None:
        self._status_slot.put_status(self._status)
        self._numbers.send(array("I", [self._status_number]))

    def beat(self, pulse: Pulse, counts: bytes = b"") -> None:
        """Give a sign of life.

        Args:
            pulse: the sign.
            counts: what this process has counted, as bytes; none where that has not been read.
        """
        with self._lock:
            if not self._closed:
                self._status_slot.put_pulse(pulse)
                if counts:
                    self._status_slot.put_counts(counts)

    def task(self, slot: int) -> Task | None:
        """The item in a slot, or None if the worker has gone."""
        with self._lock:
            if self._closed:
                return None
            item, put_at_s, deadline_s = self._memory.item(slot)
            is_waited_for = self._memory.is_waited_for(slot)
            is_suspect = self._memory.is_suspect(slot)
            caller = self.number * CALLERS + self._memory.caller(slot)
        call = RemoteCall(
            self, slot, caller, deadline_s, is_waited_for=is_waited_for, is_suspect=is_suspect
        )
        task = Task(item, call)
        task.queued_at_s = put_at_s
        return task

    def begin(self, slot: int) -> None:
        """Note that the item in a slot is being worked on."""
        with self._lock:
            if not self._closed:
                self._memory.begin(slot)

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
                # It has hung up; no caller waits for these any more.
                logger.debug("%d results for a worker that is gone", len(done))

    def close(self) -> None:
        """Free the connection and this process's hold on the memory."""
        with self._lock:
            self._closed = True
            self._done = array("I")
            self._channel.close()
            self._memory.close()
