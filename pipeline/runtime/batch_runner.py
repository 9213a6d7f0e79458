"""Runs batches through one set of backends, and tells each item what came of it."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from operator import contains
from typing import Any, TypeAlias

from engine.contexts.cuda_device import cuda_available
from interfaces.error_text import in_one_line
from pipeline.backends.assembly import build_backend
from pipeline.backends.cuda_stream import InstanceStream
from pipeline.backends.interface import (
    ENDED_KEY,
    FAILURE_KEY,
    PROFILE_KEY,
    Backend,
    InstanceConfig,
    Item,
    fail,
    forward_isolated,
    initialise,
)
from pipeline.config import NodeConfig
from pipeline.errors import BackendFailureError, DeadlinePassedError, NodeError, NoResultError
from pipeline.keys import TASK_DATA_KEY, TASK_RESULT_KEY
from pipeline.runtime.counts import InstanceCounts
from pipeline.runtime.device import Device
from pipeline.runtime.proven_item import ProvenItem
from pipeline.runtime.task import Call, Task, WaitingCall
from service.errors import forget_variables
from service.handlers.batch_clock import BatchClock

logger = logging.getLogger(__name__)

# Raises what is wrong with a result.
ResultCheck: TypeAlias = "Callable[[object], None]"
# Sends items, each with its call, to the node of that name, and waits for them.
Jump: TypeAlias = "Callable[[str, Any, Sequence[tuple[Item, Call]]], None]"


def _ignore(batch: list[Task], batch_s: float) -> None:
    """Nothing waits for callers that come back."""


@dataclass
class RunPlan:
    """What all instances of a node do with a batch.

    Attributes:
        config: the node's configuration.
        engine: a provider's name or "auto".
        instance_num: how many instances there are on each device.
        is_last: whether results end an item's way, and do not go on to another node.
        check_result: raises if a result is of no use to the caller; a node that gives no other is
            broken. None where any is.
        batch_done: called with a batch and its time before its callers know.
        proven: an item that the node has given a result for.
        jump: how its backends send items to other nodes; None where none does.
    """

    config: NodeConfig
    engine: str
    instance_num: int
    is_last: bool = True
    check_result: ResultCheck | None = None
    batch_done: Callable[[list[Task], float], None] = _ignore
    proven: ProvenItem = field(default_factory=ProvenItem)
    jump: Jump | None = None
    queue_stage: str = field(init=False)
    forward_stage: str = field(init=False)

    def __post_init__(self) -> None:
        self.queue_stage = f"{self.config.name}.queue"
        self.forward_stage = f"{self.config.name}.forward"


@dataclass
class FailureStreak:
    """Batches in a row that a backend failed.

    Causes are kept as text: an exception keeps the backend from being freed.

    Attributes:
        length: how many batches.
        cause: what the backend raised in the last of them.
    """

    length: int = 0
    cause: str = ""
    _noted: str = ""

    def note(self, error: BaseException) -> None:
        """The backend raised that in the batch at work."""
        self._noted = in_one_line(error)

    def judge(self, *, failed: int, items: int) -> None:
        """Count a batch without any result, unless its items were faulty."""
        if failed < items:
            self.length = 0
        elif self._noted:
            self.length += 1
            self.cause = self._noted
        self._noted = ""


class BatchRunner:
    """The backends of one instance, and the code that runs batches through them.

    All methods run in one thread, but for `stuck_s`, and `run` and `abandon` in whichever has them
    to itself, where `may_run_anywhere`.

    Args:
        plan: what it has in common with the node's other instances.
        device: where it works.

    Attributes:
        counts: what it has done.
        failures: batches in a row that its backend failed.
        smallest: fewest rows of a batch; known once built.
        largest: most rows of a batch; known once built.
        stream: that of its thread; None on the CPU.
    """

    def __init__(self, plan: RunPlan, device: Device) -> None:
        self.counts = InstanceCounts()
        self.failures = FailureStreak()
        self.smallest = self.largest = 1
        self._plan = plan
        self._device = device
        self._clock = BatchClock()
        self._backend: Backend
        self.stream: InstanceStream | None = None
        # The items of the batch at work that had not expired.
        self._alive: list[Task] = []

    def build(self, *, doubtful: bool = False, stream: InstanceStream | None = None) -> None:
        """Make the backends, in the thread that will run them.

        Args:
            doubtful: whether what instances share may be broken; it is then rebuilt, too, if no
                other instance holds it.
            stream: the thread's own, where another runner has made it.
        """
        plan, device = self._plan, self._device
        device.hold(doubtful=doubtful)
        try:
            # Without a GPU the backends that need one say so themselves.
            if device.is_gpu and cuda_available():
                self.stream = stream or InstanceStream(device.number)
            backend = build_backend(plan.config.backend)
            initialise(
                backend,
                InstanceConfig(
                    plan.config.name,
                    plan.config.settings,
                    plan.instance_num,
                    plan.engine,
                    device.shared,
                    plan.config.written,
                    device.number,
                    plan.config.profile_stages,
                    decoder_lock=device.decoder_lock,
                    expired=self._is_expired,
                    deadline_s=self._deadline_s,
                    jump=self._jump,
                ),
            )
        except BaseException:
            device.let_go()
            raise
        self._backend = backend
        self.smallest, self.largest = backend.min, backend.max
        self.failures = FailureStreak()

    def close(self) -> None:
        """Free the backends."""
        try:
            self._backend.close()
        except BaseException as error:  # noqa: BLE001 (what is broken may not close either)
            name = self._plan.config.name
            logger.warning("a backend of %s could not be closed: %s", name, in_one_line(error))
        del self._backend
        self.stream = None
        self._device.let_go()

    @property
    def may_run_anywhere(self) -> bool:
        """Whether any thread may run batches, one at a time, and of any size up to the largest."""
        # What is enqueued on a GPU belongs on the stream of this thread.
        return self._backend.any_thread and self.smallest == 1 and not self._device.is_gpu

    def stuck_s(self, least_s: float) -> float:
        """For how long a batch has run that is far beyond the usual time; 0 where none is."""
        return self._clock.stuck_s(least_s)

    def run(self, batch: list[Task]) -> list[Task]:
        """Run a batch, and finish the items whose way ends here; the others are returned."""
        plan, counts, largest = self._plan, self.counts, self.largest
        taken_s = time.monotonic()
        counts.items += len(batch)
        alive = []
        queue_stage = plan.queue_stage
        for task in batch:
            queued_ms = (taken_s - task.queued_at_s) * 1000
            counts.queue_ms += queued_ms
            task.stage_times_ms[queue_stage] = queued_ms
            if task.rows > largest or task.call.expired():
                self.fail(task, _refusal(task, largest))
            else:
                alive.append(task)
        if not alive:
            return []
        self._alive = alive
        self._clock.begin(taken_s)
        items = [task.item for task in alive]
        candidate = plan.proven.candidate(items[0]) if plan.proven.is_wanted else None
        self._forward(items)
        done_s = time.monotonic()
        self._clock.end(done_s)
        forward_s = done_s - taken_s
        forward_ms = forward_s * 1000
        counts.forward_ms += forward_ms
        if largest > 1:
            plan.batch_done(batch, forward_s)
        failed_before = counts.failed_items
        going_on = []
        forward_stage, profile = plan.forward_stage, plan.config.profile_stages
        for task in alive:
            task.stage_times_ms[forward_stage] = forward_ms
            if profile:
                for stage, stage_ms in task.item.pop(PROFILE_KEY, {}).items():
                    task.stage_times_ms[f"{plan.config.name}.{stage}"] = stage_ms
            if self._goes_on(task):
                going_on.append(task)
        if counts.failed_items == failed_before:
            self.failures.length = 0
            if candidate is not None:
                plan.proven.keep(candidate)
        else:
            failed = counts.failed_items - failed_before
            self.failures.judge(failed=failed, items=len(alive))
            # A failure's traceback leads to these calls, whose variables would keep its neighbours.
            alive.clear()
            items.clear()
            del batch, task
        return going_on

    def still_works(self) -> bool:
        """Whether the item that worked before works now, so that the others were faulty."""
        item = self._plan.proven.get()
        if item is None:
            return False
        self._alive = []
        self._clock.begin(time.monotonic())
        self._forward([item])
        self._clock.end(time.monotonic())
        if self._why_useless(item) is not None:
            return False
        self.failures = FailureStreak()
        return True

    def abandon(self, batch: list[Task], cause: BaseException) -> None:
        """Give what is left of a batch that `run` did not bring to its end an outcome."""
        self._clock.end(time.monotonic())
        for task in batch:
            if not task.done:
                self.fail(task, cause)

    def fail(self, task: Task, cause: BaseException) -> None:
        """End an item's way."""
        self.counts.failed_items += 1
        task.item.pop(TASK_RESULT_KEY, None)
        task.finish(NodeError(self._plan.config.name, cause))

    def _forward(self, items: list[Item]) -> None:
        """Set `result` of each item, or FAILURE_KEY."""
        forward_isolated(self._backend, items, self._is_expired)
        if self.stream is not None:
            _wait_for_gpu(self.stream, items)
        if any(map(contains, items, repeat(FAILURE_KEY))):
            _let_go_of_failures(items)
        self._backend.end_pass()

    def _is_expired(self, item: Item) -> bool:
        return any(task.item is item and task.call.expired() for task in self._alive)

    def _deadline_s(self, item: Item) -> float:
        deadlines_s = [task.call.deadline_s for task in self._alive if task.item is item]
        return min((at_s for at_s in deadlines_s if at_s is not None), default=math.inf)

    def _jump(self, target: str, division: Any, items: Sequence[Item]) -> None:
        """See `InstanceConfig.jump`."""
        calls = {id(task.item): task.call for task in self._alive}
        # The item that a doubtful instance is tried with belongs to no call.
        own = WaitingCall(len(items), None)
        assert self._plan.jump is not None  # noqa: S101 (the network sets it)
        self._plan.jump(target, division, [(item, calls.get(id(item), own)) for item in items])

    def _goes_on(self, task: Task) -> bool:
        """Whether an item that was run goes on to another node; otherwise it is finished."""
        plan, item = self._plan, task.item
        cause = self._why_useless(item)
        if cause is not None:
            if isinstance(cause, BackendFailureError):
                cause = cause.cause
                self.failures.note(cause)
            self.fail(task, cause)
            return False
        if ENDED_KEY in item and TASK_RESULT_KEY in item:
            # A filter had ended an inner sequence, and a member behind it ran all the same.
            del item[ENDED_KEY]
        if plan.is_last or ENDED_KEY in item:
            task.finish()
            return False
        item[TASK_DATA_KEY] = item.pop(TASK_RESULT_KEY)
        return True

    def _why_useless(self, item: Item) -> BaseException | None:
        """What failed an item that was run; a BackendFailureError where it is the backend's fault.

        None where there is a result, and a useful one, or a filter has ended the item without one.
        """
        check = self._plan.check_result
        if FAILURE_KEY in item or TASK_RESULT_KEY not in item:
            cause: BaseException | None = item.pop(FAILURE_KEY, None)
            if cause is not None or (ENDED_KEY in item and check is None):
                return cause
            cause = NoResultError("the backend gave no result")
            return cause if check is None else BackendFailureError(cause)
        if check is None:
            return None
        try:
            check(item[TASK_RESULT_KEY])
        except Exception as error:  # noqa: BLE001 (whatever the check raises)
            return BackendFailureError(error)
        return None


def _let_go_of_failures(items: Sequence[Item]) -> None:
    """Let go of what backends worked on when an item failed, since memory is used again now."""
    for item in items:
        if FAILURE_KEY in item:
            forget_variables(item[FAILURE_KEY])


def _wait_for_gpu(stream: InstanceStream, items: Sequence[Item]) -> None:
    """Until the results are there; what the GPU could not do shows here, too late to retry."""
    try:
        stream.finish(items)
    except BaseException as error:  # noqa: BLE001 (whatever CUDA says)
        for item in items:
            fail(item, BackendFailureError(error))


def _refusal(task: Task, largest: int) -> Exception:
    """Why an item does not run: it is too large, or else its caller has stopped waiting."""
    if task.rows > largest:
        return ValueError(
            f"request_size = {task.rows}, and a batch holds at most {largest}: send it in several "
            "items, or raise max"
        )
    return DeadlinePassedError("dropped before it ran")
