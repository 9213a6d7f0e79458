"""A node: a queue, and instances that take batches from it, each in a thread of its own."""

from __future__ import annotations

import logging
import threading
import time
from queue import SimpleQueue

from engine.interface import EngineError
from pipeline.assembly import build_backend, fitting_instance_num
from pipeline.backend import (
    FAILURE_KEY,
    Backend,
    InstanceConfig,
    SharedResources,
    forward_isolated,
    result_becomes_data,
)
from pipeline.batch_queue import BatchCounts, BatchQueue
from pipeline.config import NodeConfig
from pipeline.errors import DeadlinePassedError, NodeError, PipelineConfigError
from pipeline.keys import TASK_RESULT_KEY
from pipeline.task import Task

logger = logging.getLogger(__name__)


class Node:
    """Runs one node of a configuration.

    Attributes:
        name: the node's name.
        instance_num: how many instances run, which may be fewer than the configuration asks for.
        shared: what the instances share.
    """

    def __init__(self, config: NodeConfig, engine: str) -> None:
        self.name = config.name
        self.shared = SharedResources()
        self._config = config
        self._engine = engine
        self._queue = BatchQueue(config.batching_timeout_ms)
        self._next: Node | None = None
        self._threads: list[threading.Thread] = []
        try:
            self.instance_num = fitting_instance_num(
                config.backend, config.instance_num, config.settings, engine
            )
        except EngineError as error:
            raise PipelineConfigError(f"[{self.name}] {error}") from error
        if self.instance_num < config.instance_num:
            logger.info(
                "%s: instance_num %d becomes %d: more would take turns on the cores",
                self.name,
                config.instance_num,
                self.instance_num,
            )

    @property
    def batch_counts(self) -> BatchCounts:
        """How many batches left the queue, by reason and by size."""
        return self._queue.counts

    def connect(self, following: Node) -> None:
        """Send results to that node instead of back to the caller."""
        self._next = following

    def start(self) -> None:
        """Start the instances and wait until all are initialised.

        Raises:
            PipelineConfigError: the first instance's failure; the others are stopped.
        """
        outcomes: SimpleQueue[Exception | None] = SimpleQueue()
        for index in range(self.instance_num):
            thread = threading.Thread(
                target=self._run_instance,
                args=(outcomes,),
                name=f"{self.name}-{index}",
                daemon=True,
            )
            self._threads.append(thread)
            thread.start()
        failures = [outcome for _ in self._threads if (outcome := outcomes.get()) is not None]
        if failures:
            raise PipelineConfigError(f"[{self.name}] {failures[0]}") from failures[0]

    def submit(self, task: Task) -> None:
        """Queue one item."""
        self._queue.put(task)

    def stop(self) -> None:
        """Run what is queued, end the instances and free what they share."""
        self._queue.close()
        for thread in self._threads:
            thread.join()
        self.shared.close()

    def _run_instance(self, outcomes: SimpleQueue[Exception | None]) -> None:
        config = InstanceConfig(
            self.name, self._config.settings, self.instance_num, self._engine, self.shared
        )
        try:
            backend = build_backend(self._config.backend)
            backend.init(config)
        except Exception as error:  # noqa: BLE001 (reported by `start`, whatever it is)
            outcomes.put(error)
            return
        outcomes.put(None)
        while (batch := self._queue.take(backend.min, backend.max)) is not None:
            self._run_batch(backend, batch)
        backend.close()

    def _run_batch(self, backend: Backend, batch: list[Task]) -> None:
        taken_s = time.monotonic()
        alive = []
        for task in batch:
            task.stage_times_ms[f"{self.name}.queue"] = (taken_s - task.queued_at_s) * 1000
            if task.call.expired():
                task.finish(NodeError(self.name, DeadlinePassedError("dropped before it ran")))
            else:
                alive.append(task)
        if not alive:
            return
        forward_isolated(backend, [task.item for task in alive])
        forward_ms = (time.monotonic() - taken_s) * 1000
        for task in alive:
            task.stage_times_ms[f"{self.name}.forward"] = forward_ms
            self._hand_on(task)

    def _hand_on(self, task: Task) -> None:
        failure = task.item.pop(FAILURE_KEY, None)
        if failure is None and TASK_RESULT_KEY not in task.item:
            failure = RuntimeError("the backend gave no result")
        if failure is not None:
            task.finish(NodeError(self.name, failure))
        elif self._next is None:
            task.finish()
        else:
            result_becomes_data(task.item)
            self._next.submit(task)
