"""One instance of a node: a thread that owns backends, runs batches, and mends itself.

An instance whose backend is broken is taken out of service, closed, and made anew in its own
thread, while the others take what comes. Made anew are the backend objects, with all that their
`init` makes: for the engine's backend an execution context of the engine that the instances share.
The shared engine itself is loaded anew when a context of it was of no use, and no instance of that
device holds one any more. What outlives both, such as a CUDA context that an illegal access has
ruined, only another process can mend.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Protocol, TypeAlias

from engine.cuda_device import cuda_available
from pipeline.assembly import build_backend
from pipeline.backend import (
    FAILURE_KEY,
    PROFILE_KEY,
    Backend,
    InstanceConfig,
    Item,
    SharedResources,
    fail,
    forward_isolated,
    initialise,
    result_becomes_data,
)
from pipeline.batch_queue import BatchCounts
from pipeline.config import NodeConfig
from pipeline.cuda_stream import InstanceStream
from pipeline.errors import BackendFailureError, DeadlinePassedError, NodeError
from pipeline.in_service import InService, Refusing
from pipeline.keys import TASK_RESULT_KEY
from pipeline.node_counts import InstanceCounts
from pipeline.task import Task
from pipeline.turn import Turn
from service.error_text import in_one_line
from service.rebuild_rule import RebuildRule

logger = logging.getLogger(__name__)


class Following(Protocol):
    """Where results go."""

    def submit(self, task: Task, *, caller_waits: bool = False) -> None:
        """Take one item.

        Args:
            task: the item.
            caller_waits: whether the calling thread would only wait for it, so that it may as
                well do the work itself.
        """


# Runs an item in place of an instance's own thread; gives it back if it goes on to another node.
StandIn: TypeAlias = "Callable[[Task], Task | None]"


class BatchSource(Refusing, Protocol):
    """Where a node's instances get their batches."""

    @property
    def counts(self) -> BatchCounts:
        """How many batches have left so far."""

    def take(
        self, smallest: int, largest: int, stand_in: StandIn | None = None
    ) -> list[Task] | None:
        """Block until a batch may leave; None once closed and empty.

        Args:
            smallest: fewest items of a batch.
            largest: most items of a batch.
            stand_in: with which others may run an item meanwhile, one at a time.
        """

    def done(self, batch: list[Task], batch_s: float) -> None:
        """An instance has finished a batch; nobody has been told yet."""

    def close(self) -> None:
        """Let the waiting items leave at once, and end every `take` after them."""


class Device:
    """What a node's instances on one GPU, or all on the CPU, have in common.

    Args:
        number: the GPU's number; 0 on the CPU.
        is_gpu: whether it is a GPU.
        turn: what they take turns at, or None.

    Attributes:
        shared: what they share.
        rebuilding: held by the one that is being made anew.
    """

    def __init__(self, number: int, turn: Turn | None, *, is_gpu: bool) -> None:
        self.number = number
        self.is_gpu = is_gpu
        self.turn = turn
        self.shared = SharedResources()
        self.rebuilding = threading.Lock()
        self._lock = threading.Lock()
        self._holders = 0

    def hold(self, *, doubtful: bool) -> None:
        """Use what is shared from now on; if it is doubtful and nobody holds it, drop it first."""
        with self._lock:
            if doubtful and self._holders == 0:
                try:
                    self.shared.close()
                except Exception as error:  # noqa: BLE001 (what is broken may not close either)
                    logger.warning("what instances shared could not be closed: %s", error)
            self._holders += 1

    def let_go(self) -> None:
        """Use it no more."""
        with self._lock:
            self._holders -= 1


@dataclass(frozen=True)
class InstancePlan:
    """What the instances of a node have in common.

    Attributes:
        config: the node's configuration.
        engine: a provider's name or "auto".
        instance_num: how many there are on each device.
        source: where batches come from.
        following: where results go; None if whoever called is told.
        in_service: counts those that work.
        rule: when one counts as broken.
        stopping: set when nothing is to be made anew any more.
    """

    config: NodeConfig
    engine: str
    instance_num: int
    source: BatchSource
    following: Following | None
    in_service: InService
    rule: RebuildRule
    stopping: threading.Event = field(default_factory=threading.Event)


class Instance:
    """Runs batches in a thread of its own.

    Args:
        plan: what it has in common with the others.
        device: where it works.
        label: its name in the log.

    Attributes:
        counts: what it has done.
    """

    def __init__(self, plan: InstancePlan, device: Device, label: str) -> None:
        self.counts = InstanceCounts()
        self._plan = plan
        self._device = device
        self._label = label
        self._name = plan.config.name
        self._queue_stage, self._forward_stage = f"{self._name}.queue", f"{self._name}.forward"
        self._profile = plan.config.profile_stages
        self._next = plan.following
        self._source = plan.source
        self._backend: Backend
        self._stream: InstanceStream | None = None
        # The items that have not expired of the batch at work.
        self._alive: list[Task] = []
        # Batches in a row that its backend failed, what it raised in the batch at work, and what
        # in the last of them. That is kept as text: an exception keeps the backend from being
        # freed.
        self._failures = 0
        self._raised = ""
        self._broken_by = ""

    def run(self, outcomes: SimpleQueue[Exception | None]) -> None:
        """Initialise, report that, and run batches until the source is closed."""
        try:
            self._build(doubtful=False)
        except Exception as error:  # noqa: BLE001 (reported by `start`, whatever it is)
            outcomes.put(error)
            return
        self._plan.in_service.enter()
        outcomes.put(None)
        attempts = 0
        while True:
            done_before = self._done()
            broken = self._serve()
            if not broken:
                break
            self._plan.in_service.leave(broken)
            self._close()
            # The waits go on growing until an attempt has led to results.
            has_worked = self._done() > done_before
            attempts = self._rebuild(broken, 0 if has_worked else attempts, doubtful=not has_worked)
            if not attempts:
                return
            self._plan.in_service.enter()
        self._close()

    def _build(self, *, doubtful: bool) -> None:
        device, config = self._device, self._plan.config
        device.hold(doubtful=doubtful)
        try:
            # Without a GPU the backends that need one say so themselves.
            if device.is_gpu and cuda_available():
                self._stream = InstanceStream(device.number)
            backend = build_backend(config.backend)
            initialise(
                backend,
                InstanceConfig(
                    self._name,
                    config.settings,
                    self._plan.instance_num,
                    self._plan.engine,
                    device.shared,
                    device.number,
                    config.profile_stages,
                    turn=device.turn,
                    expired=self._is_expired,
                ),
            )
        except BaseException:
            device.let_go()
            raise
        self._backend = backend

    def _close(self) -> None:
        try:
            self._backend.close()
        except Exception as error:  # noqa: BLE001 (what is broken may not close either)
            logger.warning("%s could not be closed: %s", self._label, error)
        del self._backend
        self._stream = None
        self._device.let_go()

    def _rebuild(self, cause: str, attempts: int, *, doubtful: bool) -> int:
        """Make the backend anew, however often it takes.

        Args:
            cause: what is wrong.
            attempts: how many there were since it last worked.
            doubtful: whether what instances share may be at fault.

        Returns:
            How many attempts there are now; 0 if the node is being stopped instead.
        """
        while True:
            attempts += 1
            wait_s = self._plan.rule.wait_s(attempts)
            logger.error(
                "%s is out of service: %s; attempt %d to rebuild it follows in %g s",
                self._label,
                cause,
                attempts,
                wait_s,
            )
            if self._plan.stopping.wait(wait_s):
                return 0
            with self._device.rebuilding:
                if self._plan.stopping.is_set():
                    return 0
                try:
                    self._build(doubtful=doubtful)
                except Exception as error:  # noqa: BLE001 (tried again, whatever it is)
                    cause, doubtful = in_one_line(error), True
                    continue
            self._failures = 0
            self.counts.rebuilds += 1
            logger.info("%s is back in service after attempt %d", self._label, attempts)
            return attempts

    def _done(self) -> int:
        """How many items it has given results."""
        return self.counts.items - self.counts.failed_items

    def _is_expired(self, item: Item) -> bool:
        return any(task.item is item and task.call.expired() for task in self._alive)

    def _serve(self) -> str:
        """Run batches until the backend is broken: why it is; or "" once the source is closed."""
        most_failures = self._plan.rule.failures
        turn = self._device.turn
        smallest, largest = self._backend.min, self._backend.max
        # What is enqueued on a GPU belongs on the stream of this thread.
        may_be_lent = self._backend.any_thread and largest == 1 and not self._device.is_gpu
        stand_in = self._stand_in if may_be_lent else None
        while True:
            if turn is not None:
                turn.wait()
            batch = self._source.take(smallest, largest, stand_in)
            if batch is not None:
                for task in self._run_batch(batch, largest):
                    self._go_on(task)
            if turn is not None:
                turn.pass_on()
            if batch is None:
                return ""
            for after_batch in {task.call.after_batch for task in batch}:
                if after_batch is not None:
                    after_batch()
            if self._failures >= most_failures:
                return self._broken_by

    def _stand_in(self, task: Task) -> Task | None:
        """Run an item in the calling thread, while this instance's own one waits."""
        going_on = self._run_batch([task], 1)
        return going_on[0] if going_on else None

    def _run_batch(self, batch: list[Task], largest: int) -> list[Task]:
        """Run a batch, and finish the items whose way ends here; the others are returned."""
        counts = self.counts
        taken_s = time.monotonic()
        counts.items += len(batch)
        alive = []
        for task in batch:
            queued_ms = (taken_s - task.queued_at_s) * 1000
            counts.queue_ms += queued_ms
            task.stage_times_ms[self._queue_stage] = queued_ms
            if (refusal := _refusal(task, largest)) is None:
                alive.append(task)
            else:
                self._fail(task, refusal)
        if not alive:
            return []
        self._alive = alive
        items = [task.item for task in alive]
        forward_isolated(self._backend, items, self._is_expired)
        if self._stream is not None:
            self._wait_for_gpu(self._stream, items)
        forward_s = time.monotonic() - taken_s
        forward_ms = forward_s * 1000
        counts.forward_ms += forward_ms
        if largest > 1:
            self._source.done(batch, forward_s)
        failed_before = counts.failed_items
        going_on = []
        for task in alive:
            task.stage_times_ms[self._forward_stage] = forward_ms
            if self._profile:
                for stage, stage_ms in task.item.pop(PROFILE_KEY, {}).items():
                    task.stage_times_ms[f"{self._name}.{stage}"] = stage_ms
            if self._goes_on(task):
                going_on.append(task)
        if counts.failed_items == failed_before:
            self._failures = 0
        else:
            self._judge(failed=counts.failed_items - failed_before, items=len(alive))
        return going_on

    def _judge(self, *, failed: int, items: int) -> None:
        """Count a batch of which nothing came through, unless its items were at fault."""
        if failed < items:
            self._failures = 0
        elif self._raised:
            self._failures += 1
            self._broken_by = self._raised
        self._raised = ""

    def _wait_for_gpu(self, stream: InstanceStream, items: Sequence[Item]) -> None:
        """Until the results are there; what the GPU could not do shows here, too late to retry."""
        try:
            stream.finish(items)
        except Exception as error:  # noqa: BLE001 (whatever CUDA says)
            for item in items:
                fail(item, BackendFailureError(error))

    def _fail(self, task: Task, cause: Exception) -> None:
        self.counts.failed_items += 1
        task.finish(NodeError(self._name, cause))

    def _goes_on(self, task: Task) -> bool:
        """Whether an item that was run goes on to another node; otherwise it is finished."""
        item = task.item
        if FAILURE_KEY in item or TASK_RESULT_KEY not in item:
            cause = item.pop(FAILURE_KEY, RuntimeError("the backend gave no result"))
            if isinstance(cause, BackendFailureError):
                cause = cause.cause
                self._raised = in_one_line(cause)
            self._fail(task, cause)
            return False
        if self._next is None:
            task.finish()
            return False
        result_becomes_data(item)
        return True

    def _go_on(self, task: Task) -> None:
        if self._next is not None:
            self._next.submit(task)


def _refusal(task: Task, largest: int) -> Exception | None:
    """Why an item does not run, or None."""
    if task.call.expired():
        return DeadlinePassedError("dropped before it ran")
    if task.rows > largest:
        return ValueError(
            f"request_size = {task.rows}, and a batch holds at most {largest}: send it in several "
            "items, or raise max"
        )
    return None
