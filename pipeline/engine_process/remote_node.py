"""A node that runs in the engine process, as the pipeline in a worker sees it."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any

from pipeline.engine_process import semaphore
from pipeline.engine_process.announced_items import announcement
from pipeline.engine_process.messages import SlotNumbers, receive_object, send_object
from pipeline.engine_process.slots import RemoteError, SlotError, SlotMemory
from pipeline.errors import DeadlinePassedError, NodeError, PipelineConfigError
from pipeline.keys import TASK_RESULT_KEY
from pipeline.task import Task

logger = logging.getLogger(__name__)

# As many items of one worker may be in the engine process; further ones wait for a slot.
_SLOTS = 256
# Room for the largest request that the service accepts; memory is taken for what comes.
_SLOT_BYTES = 32 * 1024 * 1024
# The slot behind them, in which the engine process says why it gives no results.
_STATUS_SLOT = _SLOTS
_RESTARTED = "the engine process is being restarted"
_CAN_FETCH = semaphore.available()
# How often those who wait for a slot look whether one has been left whose time was over.
_LOOK_S = 0.02


class RemoteNode:
    """Hands items to the engine process and takes their results.

    If that process ends, the items that it had fail, and further ones until `connect_to` has found
    another one.

    Args:
        name: the node's name; it is the first of those that run there.
        connect_to: finds or starts the engine process and gives a socket connected to it.

    Attributes:
        info: what runs in that process, as it tells itself.
    """

    def __init__(self, name: str, connect_to: Callable[[], socket.socket]) -> None:
        self.name = name
        self.info: dict[str, Any] = {}
        self._connect_to = connect_to
        self._line: _Line | None = None
        self._stopped = threading.Event()
        self._listener = threading.Thread(target=self._listen, name=f"{name}-remote", daemon=True)

    def start(self) -> None:
        """Connect; PipelineConfigError says why what is to run there cannot."""
        self._line = self._open()
        self._listener.start()

    def submit(self, task: Task, *, caller_waits: bool = False) -> None:
        """Hand one item over; if the caller waits for it alone, wait here until it is done."""
        line = self._line
        if line is None:
            task.finish(NodeError(self.name, RemoteError(_RESTARTED)))
        else:
            line.submit(task, fetch=caller_waits and _CAN_FETCH)

    def why_not_ready(self) -> str:
        """Why the engine process gives no results; "" where it does."""
        line = self._line
        return f"node {self.name!r}: {_RESTARTED}" if line is None else line.why_not_ready

    def stop(self) -> None:
        """Hang up; nothing is under way any more."""
        self._stopped.set()
        if (line := self._line) is not None:
            line.hang_up()
        if self._listener.ident is not None:
            self._listener.join()

    def _open(self) -> _Line:
        """A line to an engine process that is ready; PipelineConfigError if there is none."""
        try:
            line = _Line(self.name, self._connect_to())
        except OSError as error:
            raise PipelineConfigError(f"no engine process can be started: {error}") from error
        try:
            self.info = line.greet()
        except (EOFError, OSError) as error:
            line.close()
            raise PipelineConfigError(
                "the engine process ended while it started; the log above has what it said"
            ) from error
        except PipelineConfigError:
            line.close()
            raise
        return line

    def _listen(self) -> None:
        while not self._stopped.is_set():
            line = self._line
            if line is None:
                self._reconnect()
                continue
            line.serve()
            self._line = None
            line.close()

    def _reconnect(self) -> None:
        logger.error("%s: the engine process ended; looking for another one", self.name)
        try:
            self._line = self._open()
        except PipelineConfigError as error:
            logger.error("%s: %s", self.name, error)
            self._stopped.wait(1.0)
        else:
            logger.info("%s: the engine process is there again", self.name)


class _Line:
    """One connection to one engine process, and the memory that both share.

    Attributes:
        why_not_ready: what that process says keeps it from giving results; "" if nothing does.
    """

    def __init__(self, node: str, sock: socket.socket) -> None:
        self._node = node
        self._socket = sock
        self._numbers = SlotNumbers(sock)
        self._memory = SlotMemory.create(_SLOTS + 1, _SLOT_BYTES)
        self.why_not_ready = ""
        self._announcements = -1
        self._number = 0
        self._lock = threading.Lock()
        self._tasks: dict[int, Task] = {}
        # Slots at whose semaphores threads wait, and those that threads have left whose deadline
        # had passed: the outcome is still to come.
        self._waited_for: set[int] = set()
        self._left: set[int] = set()
        self._closed = False
        self._free: SimpleQueue[int] = SimpleQueue()
        for slot in range(_SLOTS):
            self._free.put(slot)

    def greet(self) -> dict[str, Any]:
        """Share the memory; return what the other process says of itself."""
        shape = {"slots": self._memory.count, "slot_bytes": self._memory.slot_bytes}
        send_object(self._socket, shape, [self._memory.fd])
        answer, fds = receive_object(self._socket, max_fds=1)
        if "failed" in answer:
            raise PipelineConfigError(answer["failed"])
        self._announcements = fds[0]
        self._number = answer["worker"]
        info: dict[str, Any] = answer["info"]
        return info

    def submit(self, task: Task, *, fetch: bool) -> None:
        """Put an item into a slot and announce it; one that expires meanwhile is dropped.

        Args:
            task: the item.
            fetch: whether to wait for the outcome here, and not leave it to `serve`. It saves
                waking another thread first.
        """
        slot = self._free_slot(task.call.deadline_s)
        if slot is None:
            dropped = DeadlinePassedError("dropped before there was a place for it")
            task.finish(NodeError(self._node, dropped))
            return
        failure = self._put(slot, task, fetch=fetch)
        if failure is not None:
            self._free.put(slot)
            task.finish(NodeError(self._node, failure))
        elif fetch:
            self._fetch(slot, task.call.deadline_s)

    def _free_slot(self, deadline_s: float | None) -> int | None:
        """A slot that nobody uses; None if there is none in time."""
        while True:
            if self._left:
                self._take_back()
            left_s = None if deadline_s is None else max(0.0, deadline_s - time.monotonic())
            wait_s = left_s
            if self._left:
                wait_s = _LOOK_S if left_s is None else min(left_s, _LOOK_S)
            try:
                return self._free.get(timeout=wait_s)
            except Empty:
                if wait_s == left_s:
                    return None

    def _take_back(self) -> None:
        """Free the slots that were left, and whose outcome has come since."""
        with self._lock:
            if self._closed:
                self._left.clear()
                return
            done = [slot for slot in self._left if self._memory.semaphore(slot).take()]
            self._left.difference_update(done)
        for slot in done:
            self._finish(slot)

    def _put(self, slot: int, task: Task, *, fetch: bool) -> Exception | None:
        """Hand an item over; why that cannot be, or None."""
        if task.call.expired():
            return DeadlinePassedError("dropped before it was handed over")
        with self._lock:
            if self._closed:
                return RemoteError("the engine process ended")
            try:
                self._memory.put_item(
                    slot, task.item, time.monotonic(), task.call.deadline_s, is_waited_for=fetch
                )
            except SlotError as error:
                return error
            self._tasks[slot] = task
            if fetch:
                self._waited_for.add(slot)
            try:
                os.write(self._announcements, announcement(self._number, slot))
            except OSError:
                # `serve` sees that the process has ended too, and fails what was handed over.
                logger.debug("%s: slot %d could not be announced", self._node, slot)
            return None

    def _fetch(self, slot: int, deadline_s: float | None) -> None:
        """Wait for an outcome. After the deadline the slot is left to those who need one."""
        with self._lock:
            if self._closed:
                return
            semaphore = self._memory.semaphore(slot)
        is_done = semaphore.wait(deadline_s)
        with self._lock:
            self._waited_for.discard(slot)
            if not is_done and not self._closed:
                self._left.add(slot)
        if is_done:
            self._finish(slot)

    def serve(self) -> None:
        """Finish items as their results come, until the connection ends; then fail the others."""
        try:
            while True:
                for slot in self._numbers.receive():
                    if slot == _STATUS_SLOT:
                        self.why_not_ready = self._memory.status(slot)
                    else:
                        self._finish(slot)
        except (EOFError, OSError):
            self._fail_all()

    def hang_up(self) -> None:
        """Let `serve` return."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            # The other process was faster.
            return

    def close(self) -> None:
        """Free the connection and the memory."""
        self._socket.close()
        with self._lock:
            self._closed = True
            announcements, self._announcements = self._announcements, -1
        if announcements >= 0:
            os.close(announcements)
        self._memory.close()

    def _finish(self, slot: int) -> None:
        with self._lock:
            task = self._tasks.pop(slot, None)
            if task is None:
                # The connection has ended: `_fail_all` was faster.
                return
            result, error, times_ms = self._memory.outcome(slot)
        self._free.put(slot)
        task.stage_times_ms.update(times_ms)
        if error is None:
            task.item[TASK_RESULT_KEY] = result
        task.finish(error)

    def _fail_all(self) -> None:
        with self._lock:
            self._closed = True
            lost = list(self._tasks.values())
            self._tasks.clear()
            for slot in self._waited_for:
                self._memory.semaphore(slot).post()
        for task in lost:
            task.finish(NodeError(self._node, RemoteError("the engine process ended")))
            # Whoever waits for a slot gets one, and learns that the line is closed.
            self._free.put(0)
