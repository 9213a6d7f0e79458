"""A node: a queue, and instances that take batches from it, each in a thread of its own."""

from __future__ import annotations

import logging
import threading
import time
from queue import SimpleQueue
from typing import Protocol

from engine.cuda_device import cuda_available
from engine.interface import EngineError
from pipeline.assembly import (
    build_backend,
    fitting_instance_num,
    runs_on_gpu,
    takes_turns,
)
from pipeline.backend import (
    FAILURE_KEY,
    PROFILE_KEY,
    Backend,
    InstanceConfig,
    SharedResources,
    forward_isolated,
    initialise,
    result_becomes_data,
)
from pipeline.batch_queue import BatchCounts, BatchQueue
from pipeline.config import NodeConfig
from pipeline.cuda_stream import InstanceStream
from pipeline.errors import DeadlinePassedError, NodeError, PipelineConfigError
from pipeline.keys import TASK_RESULT_KEY
from pipeline.node_counts import InstanceCounts, NodeCounts
from pipeline.task import Task
from pipeline.turn import Turn

logger = logging.getLogger(__name__)


class Following(Protocol):
    """Where results go."""

    def submit(self, task: Task) -> None:
        """Take one item."""


class BatchSource(Protocol):
    """Where a node's instances get their batches."""

    @property
    def counts(self) -> BatchCounts:
        """How many batches have left so far."""

    def take(self, smallest: int, largest: int) -> list[Task] | None:
        """Block until a batch may leave; None once closed and empty."""

    def done(self, batch: list[Task], batch_s: float) -> None:
        """An instance has finished a batch; nobody has been told yet."""

    def close(self) -> None:
        """Let the waiting items leave at once, and end every `take` after them."""


class Node:
    """Runs one node of a configuration.

    Args:
        config: its part of the configuration.
        engine: a provider's name or "auto".
        source: where its items come from if not from `submit`.

    Attributes:
        name: the node's name.
        instance_num: how many instances run on each device, which may be fewer than the
            configuration asks for.
        device_ids: the GPUs that have a set of instances each; empty where they run on the CPU.
    """

    def __init__(self, config: NodeConfig, engine: str, source: BatchSource | None = None) -> None:
        self.name = config.name
        self._config = config
        self._queue_stage, self._forward_stage = f"{self.name}.queue", f"{self.name}.forward"
        self._engine = engine
        self._queue = BatchQueue(config.batching_timeout_ms)
        self._source: BatchSource = self._queue if source is None else source
        self._next: Following | None = None
        self._threads: list[threading.Thread] = []
        self._instance_counts: list[InstanceCounts] = []
        try:
            self.instance_num = fitting_instance_num(
                config.backend, config.instance_num, config.settings, engine
            )
            on_gpu = runs_on_gpu(config.backend, config.settings, engine)
        except EngineError as error:
            raise PipelineConfigError(f"[{self.name}] {error}") from error
        self.device_ids = config.device_ids if on_gpu else ()
        # Weights and other things of one GPU are of no use on another.
        self._shared = {device_id: SharedResources() for device_id in self.device_ids or (0,)}
        if self.instance_num < config.instance_num:
            logger.info(
                "%s: instance_num %d becomes %d: more would take turns on the cores",
                self.name,
                config.instance_num,
                self.instance_num,
            )

    @property
    def counts(self) -> NodeCounts:
        """What the node has done so far."""
        return NodeCounts.of(self._instance_counts, self._source.counts)

    @property
    def shared(self) -> SharedResources:
        """What the instances of the first device share."""
        return next(iter(self._shared.values()))

    def connect(self, following: Following) -> None:
        """Send results straight to that node, instead of telling whoever called."""
        self._next = following

    def start(self) -> None:
        """Start the instances and wait until all are initialised.

        Raises:
            PipelineConfigError: the first instance's failure; the others are stopped.
        """
        outcomes: SimpleQueue[Exception | None] = SimpleQueue()
        for device_id in self._shared:
            for index in range(self.instance_num):
                thread = threading.Thread(
                    target=self._run_instance,
                    args=(device_id, outcomes),
                    name=f"{self.name}-{device_id}-{index}",
                    daemon=True,
                )
                self._threads.append(thread)
                thread.start()
        failures = [outcome for _ in self._threads if (outcome := outcomes.get()) is not None]
        if failures:
            raise PipelineConfigError(f"[{self.name}] {failures[0]}") from failures[0]

    def submit(self, task: Task) -> None:
        """Queue one item; not for a node that has a source of its own."""
        self._queue.put(task)

    def stop(self) -> None:
        """Run what is queued, end the instances and free what they share."""
        self._source.close()
        for thread in self._threads:
            thread.join()
        for shared in self._shared.values():
            shared.close()

    def _run_instance(self, device_id: int, outcomes: SimpleQueue[Exception | None]) -> None:
        turn: Turn | None = None
        if takes_turns(self._config.backend):
            turn = self._shared[device_id].get_or_create("turn", Turn)
        config = InstanceConfig(
            self.name,
            self._config.settings,
            self.instance_num,
            self._engine,
            self._shared[device_id],
            device_id,
            self._config.profile_stages,
            turn=turn,
        )
        stream: InstanceStream | None = None
        try:
            # Without a GPU the backends that need one say so themselves.
            if self.device_ids and cuda_available():
                stream = InstanceStream(device_id)
            backend = build_backend(self._config.backend)
            initialise(backend, config)
        except Exception as error:  # noqa: BLE001 (reported by `start`, whatever it is)
            outcomes.put(error)
            return
        outcomes.put(None)
        counts = InstanceCounts()
        self._instance_counts.append(counts)
        smallest, largest = backend.min, backend.max
        while True:
            if turn is not None:
                turn.wait()
            batch = self._source.take(smallest, largest)
            if batch is not None:
                self._run_batch(backend, batch, stream, counts)
            if turn is not None:
                turn.pass_on()
            if batch is None:
                break
            # The items of a process are all its own, or all another process's.
            if batch[0].call.after_batch is not None:
                for after_batch in {task.call.after_batch for task in batch}:
                    if after_batch is not None:
                        after_batch()
        backend.close()

    def _run_batch(
        self,
        backend: Backend,
        batch: list[Task],
        stream: InstanceStream | None,
        counts: InstanceCounts,
    ) -> None:
        taken_s = time.monotonic()
        counts.items += len(batch)
        largest = backend.max
        alive = []
        for task in batch:
            queued_ms = (taken_s - task.queued_at_s) * 1000
            counts.queue_ms += queued_ms
            task.stage_times_ms[self._queue_stage] = queued_ms
            if (refusal := _refusal(task, largest)) is None:
                alive.append(task)
            else:
                self._fail(task, refusal, counts)
        if not alive:
            return
        items = [task.item for task in alive]
        forward_isolated(backend, items)
        if stream is not None:
            stream.finish(items)
        forward_s = time.monotonic() - taken_s
        forward_ms = forward_s * 1000
        counts.forward_ms += forward_ms
        if largest > 1:
            self._source.done(batch, forward_s)
        for task in alive:
            task.stage_times_ms[self._forward_stage] = forward_ms
            if self._config.profile_stages:
                for stage, stage_ms in task.item.pop(PROFILE_KEY, {}).items():
                    task.stage_times_ms[f"{self.name}.{stage}"] = stage_ms
            self._hand_on(task, counts)

    def _fail(self, task: Task, cause: Exception, counts: InstanceCounts) -> None:
        counts.failed_items += 1
        task.finish(NodeError(self.name, cause))

    def _hand_on(self, task: Task, counts: InstanceCounts) -> None:
        item = task.item
        if FAILURE_KEY in item or TASK_RESULT_KEY not in item:
            no_result = RuntimeError("the backend gave no result")
            self._fail(task, item.pop(FAILURE_KEY, no_result), counts)
        elif self._next is None:
            task.finish()
        else:
            result_becomes_data(item)
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
