"""One connection of a worker to the engine process, and the items that are there."""

from __future__ import annotations

import logging
import os
import select
import socket
import threading
import time

from interfaces.stats import Stats
from pipeline.engine_process.engine_facts import EngineFacts
from pipeline.engine_process.messages import TO_WORKER, CannotRun, SharedSlots, SlotNumbers
from pipeline.engine_process.pending_items import PendingItem
from pipeline.engine_process.slot_allocator import SlotAllocator
from pipeline.engine_process.slots import SlotLimits, SlotMemory, data_bytes
from pipeline.engine_process.status_slot import Pulse
from pipeline.engine_process.submission_queue import submission
from pipeline.engine_process.watchdog import Watchdog
from pipeline.errors import DeadlinePassedError, NodeError, PipelineConfigError
from pipeline.keys import TASK_RESULT_KEY
from service.processes.control_channel import ControlChannel
from service.processes.stats_report import decode_stats

logger = logging.getLogger(__name__)

# As many items of one worker may be in the engine process; further ones wait for a slot.
_SLOTS = 256
# The slot behind them, in which the engine process says why it gives no results, and that it lives.
_STATUS_SLOT = _SLOTS
# How often threads that wait for a slot look whether one has been left whose time was over.
_LOOK_S = 0.02
# A process that was killed ends at once, unless the kernel itself is at work for it.
_DYING_S = 5.0


class EngineConnection:
    """One connection to one engine process, and the memory that both share.

    Args:
        node: the name of the node that hands items over.
        sock: the connection.
        pid: that process.
        limits: of the shared memory.
        hang_timeout_s: how long that process may give no sign of life; 0 for no limit.

    Attributes:
        why_not_ready: what that process says keeps it from giving results; "" if nothing does.

    Raises:
        OSError: the process has ended, or there is no memory or descriptor left; the connection is
            still open.
    """

    def __init__(
        self, node: str, sock: socket.socket, pid: int, limits: SlotLimits, hang_timeout_s: float
    ) -> None:
        self._node = node
        self._socket = sock
        self._numbers = SlotNumbers(sock)
        self._watchdog = Watchdog(pid, hang_timeout_s, lambda: self._told.pulse())
        try:
            self._memory = SlotMemory.create(_SLOTS + 1, limits.slot_bytes)
        except BaseException:
            self._watchdog.close()
            raise
        self._told = self._memory.status_slot(_STATUS_SLOT)
        # Until that process writes there itself.
        self._told.put_pulse(Pulse(0, is_loading=True))
        self._waiting = select.poll()
        self._waiting.register(sock, select.POLLIN)
        self.why_not_ready = ""
        self._stats = Stats()
        self._submissions = -1
        self._number = 0
        self._lock = threading.Lock()
        self._items: dict[int, PendingItem] = {}
        # Slots at whose semaphores threads wait; and slots whose threads left at their deadline,
        # before the outcome came.
        self._waited_for: set[int] = set()
        self._left: set[int] = set()
        self._closed = False
        self._free = SlotAllocator(self._memory, _SLOTS, limits.all_items_bytes)

    def greet(self) -> EngineFacts:
        """Share the memory; return what runs in the other process once it has loaded.

        Raises:
            EOFError, OSError: it has ended, or hung and was killed.
            PipelineConfigError: it cannot run its nodes, and why.
        """
        channel = ControlChannel(self._socket, TO_WORKER)
        shared = SharedSlots(self._memory.count, self._memory.slot_bytes)
        if not channel.send(shared, [self._memory.fd]):
            raise EOFError("the engine process ended")
        self._wait()
        answer = channel.receive()
        if answer is None:
            raise EOFError("the engine process ended")
        if isinstance(answer.content, CannotRun):
            raise PipelineConfigError(answer.content.reason)
        self._submissions = answer.descriptor()
        self._number = answer.content.worker
        facts: EngineFacts = answer.content.facts
        return facts

    def submit(self, item: PendingItem, *, fetch: bool) -> bool:
        """Put an item into a slot and submit it; one that expires meanwhile is dropped.

        Args:
            item: the item.
            fetch: whether to wait for the outcome here, and not leave it to `serve`. It saves
                waking another thread first.

        Returns:
            Whether that was possible; False once the connection has ended.
        """
        task = item.task
        slot = self._free_slot(data_bytes(task.item), task.call.deadline_s)
        if slot is None:
            dropped = DeadlinePassedError("dropped before there was a place for it")
            task.finish(NodeError(self._node, dropped))
            return True
        try:
            failure = self._put(slot, item, fetch=fetch)
        except EOFError:
            return False
        if failure is not None:
            self._free.put(slot)
            task.finish(NodeError(self._node, failure))
        elif fetch:
            self._fetch(slot, task.call.deadline_s)
        return True

    def _free_slot(self, size_bytes: int, deadline_s: float | None) -> int | None:
        """A free slot, and room for an item; None if there is none in time."""
        while True:
            if self._left:
                self._take_back()
            left_s = None if deadline_s is None else max(0.0, deadline_s - time.monotonic())
            wait_s = left_s
            if self._left:
                wait_s = _LOOK_S if left_s is None else min(left_s, _LOOK_S)
            slot = self._free.take(size_bytes, wait_s)
            if slot is not None or wait_s == left_s:
                return slot

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

    def _put(self, slot: int, item: PendingItem, *, fetch: bool) -> Exception | None:
        """Hand an item over; why that cannot be, or None. EOFError once the connection ended."""
        task = item.task
        if task.call.expired():
            return DeadlinePassedError("dropped before it was handed over")
        with self._lock:
            if self._closed:
                raise EOFError("the engine process ended")
            try:
                self._memory.put_item(
                    slot,
                    task.item,
                    time.monotonic(),
                    task.call.deadline_s,
                    is_waited_for=fetch,
                    is_suspect=item.tries > 0,
                    caller=task.call.caller,
                )
            except Exception as error:  # noqa: BLE001 (whatever tensors may be like)
                return error
            self._items[slot] = item
            if fetch:
                self._waited_for.add(slot)
            try:
                os.write(self._submissions, submission(self._number, slot))
            except OSError:
                # `serve` sees that the process has ended too, and gives back what it had.
                logger.debug("%s: slot %d could not be submitted", self._node, slot)
            return None

    def _fetch(self, slot: int, deadline_s: float | None) -> None:
        """Wait for an outcome. After the deadline the slot is left to those who need one."""
        with self._lock:
            if self._closed:
                return
            semaphore = self._memory.semaphore(slot)
        is_done = False
        try:
            is_done = semaphore.wait(deadline_s)
        finally:
            with self._lock:
                self._waited_for.discard(slot)
                if not is_done and not self._closed:
                    self._left.add(slot)
        if is_done:
            self._finish(slot)

    def serve(self) -> list[PendingItem]:
        """Finish items as their results come, until the other process ends, or hangs and is killed.

        Returns:
            The items that it had then.
        """
        try:
            while True:
                self._wait()
                for slot in self._numbers.receive():
                    if slot == _STATUS_SLOT:
                        self.why_not_ready = self._told.status()
                    else:
                        self._finish(slot)
        except (EOFError, OSError):
            logger.debug("%s: the engine process hung up", self._node)
        return self.end()

    def _wait(self) -> None:
        """Wait until the other process says something; EOFError if it hung and was killed."""
        look_s = self._watchdog.look_s
        look_ms = None if look_s is None else look_s * 1000
        while not self._waiting.poll(look_ms):
            if self._watchdog.look():
                self._watchdog.kill()
                raise EOFError("the engine process hung")
        self._watchdog.lives()

    @property
    def stats(self) -> Stats:
        """What the other process has done for all workers, as of its last heartbeat."""
        # While a heartbeat is written, what was read before is the newest.
        if counts := self._told.counts():
            self._stats = decode_stats(counts)
        return self._stats

    def wait_for_end(self) -> None:
        """Wait until the other process is gone: until then its socket could be connected to."""
        self._watchdog.wait_for_end(_DYING_S)

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
            submissions, self._submissions = self._submissions, -1
        if submissions >= 0:
            os.close(submissions)
        self._free.close()
        self._memory.close()
        self._watchdog.close()

    def _finish(self, slot: int) -> None:
        with self._lock:
            item = self._items.pop(slot, None)
            if item is None:
                # The connection has ended: `end` was faster.
                return
            try:
                result, error, times_ms = self._memory.outcome(slot)
            except Exception as unreadable:  # noqa: BLE001 (it costs this item, and no other)
                result, times_ms = None, {}
                error = NodeError(self._node, unreadable)
        self._free.put(slot)
        task = item.task
        task.stage_times_ms.update(times_ms)
        if error is None:
            task.item[TASK_RESULT_KEY] = result
        task.finish(error)

    def end(self) -> list[PendingItem]:
        """Take no more items; those that the other process had."""
        with self._lock:
            self._closed = True
            lost = [
                PendingItem(task, tries + self._memory.is_begun(slot))
                for slot, (task, tries) in self._items.items()
            ]
            self._items.clear()
            for slot in self._waited_for:
                self._memory.semaphore(slot).post()
        # A thread that waits for a slot gets one, and learns that the connection is closed.
        self._free.close()
        return lost
