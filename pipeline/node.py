"""A node: a queue, and instances that take batches from it, each in a thread of its own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue

from engine.interface import EngineError
from pipeline.assembly import fitting_instance_num, runs_on_gpu, takes_turns
from pipeline.backend import SharedResources
from pipeline.batch_queue import BatchQueue
from pipeline.config import NodeConfig
from pipeline.errors import DeadlinePassedError, NodeError, PipelineConfigError
from pipeline.in_service import InService
from pipeline.instance import BatchSource, Device, Following, Instance, InstancePlan
from pipeline.node_counts import NodeCounts
from pipeline.task import Task
from pipeline.turn import Turn
from service.rebuild_rule import DEFAULT_RULE, RebuildRule

logger = logging.getLogger(__name__)


class Node:
    """Runs one node of a configuration.

    Args:
        config: its part of the configuration.
        engine: a provider's name or "auto".
        source: where its items come from if not from `submit`.
        rule: when an instance counts as broken, and how often it is made anew.
        changed: called after the last instance has gone out of service, and after one is back.

    Attributes:
        name: the node's name.
        instance_num: how many instances run on each device, which may be fewer than the
            configuration asks for.
        device_ids: the GPUs that have a set of instances each; empty where they run on the CPU.
    """

    def __init__(
        self,
        config: NodeConfig,
        engine: str,
        source: BatchSource | None = None,
        rule: RebuildRule = DEFAULT_RULE,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = config.name
        self._config = config
        self._engine = engine
        self._rule = rule
        self._queue = BatchQueue(config.batching_timeout_ms)
        self._source: BatchSource = self._queue if source is None else source
        self._next: Following | None = None
        self._in_service = InService(self.name, self._source, changed)
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._instances: list[Instance] = []
        try:
            self.instance_num = fitting_instance_num(
                config.backend, config.instance_num, config.settings, engine
            )
            on_gpu = runs_on_gpu(config.backend, config.settings, engine)
        except EngineError as error:
            raise PipelineConfigError(f"[{self.name}] {error}") from error
        self.device_ids = config.device_ids if on_gpu else ()
        # Weights and other things of one GPU are of no use on another.
        self._devices = [
            Device(
                number,
                Turn() if takes_turns(config.backend) else None,
                is_gpu=bool(self.device_ids),
            )
            for number in self.device_ids or (0,)
        ]
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
        done = [instance.counts for instance in self._instances]
        return NodeCounts.of(done, self._source.counts, self._in_service.working)

    def why_not_ready(self) -> str:
        """Since when and why none of its instances works; "" where one does."""
        return self._in_service.why_not_ready()

    @property
    def shared(self) -> SharedResources:
        """What the instances of the first device share."""
        return self._devices[0].shared

    def connect(self, following: Following) -> None:
        """Send results straight to that node, instead of telling whoever called."""
        self._next = following

    def start(self) -> None:
        """Start the instances and wait until all are initialised.

        Raises:
            PipelineConfigError: the first instance's failure; the others are stopped.
        """
        outcomes: SimpleQueue[Exception | None] = SimpleQueue()
        plan = InstancePlan(
            self._config,
            self._engine,
            self.instance_num,
            self._source,
            self._next,
            self._in_service,
            self._rule,
            self._stopping,
        )
        for device in self._devices:
            for index in range(self.instance_num):
                name = f"{self.name}-{device.number}-{index}"
                instance = Instance(plan, device, name)
                thread = threading.Thread(
                    target=instance.run, args=(outcomes,), name=name, daemon=True
                )
                self._instances.append(instance)
                self._threads.append(thread)
                thread.start()
        failures = [outcome for _ in self._threads if (outcome := outcomes.get()) is not None]
        if failures:
            raise PipelineConfigError(f"[{self.name}] {failures[0]}") from failures[0]

    def submit(self, task: Task, *, caller_waits: bool = False) -> None:
        """Take one item; not for a node that has a source of its own.

        Args:
            task: the item.
            caller_waits: whether the calling thread would only wait for it. If the node's work
                can be done there and an instance is idle, it does it in that one's place.
        """
        if caller_waits:
            was_run, going_on = self._queue.run_in_caller(task)
            if going_on is not None and self._next is not None:
                self._next.submit(going_on, caller_waits=True)
            if was_run:
                return
        for overdue in self._queue.put(task):
            passed = DeadlinePassedError("dropped while all instances were at work")
            overdue.finish(NodeError(self.name, passed))

    def stop(self) -> None:
        """Run what is queued, end the instances and free what they share."""
        self._stopping.set()
        self._source.close()
        for thread in self._threads:
            thread.join()
        for device in self._devices:
            device.shared.close()
