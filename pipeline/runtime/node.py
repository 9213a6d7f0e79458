"""A node: a queue, and instances that take batches from it, each in a thread of its own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import nullcontext
from queue import SimpleQueue

from engine.errors import EngineError
from interfaces.error_text import what_it_says
from pipeline.backends.assembly import fitting_instance_num, locks_decoder, runs_on_gpu
from pipeline.backends.decoder_lock import DecoderLock
from pipeline.backends.interface import SharedResources
from pipeline.config import NodeConfig
from pipeline.errors import ClosedError, DeadlinePassedError, NodeError, PipelineConfigError
from pipeline.runtime.availability import Availability
from pipeline.runtime.batch_queue import BatchQueue
from pipeline.runtime.batch_runner import Jump, ResultCheck, RunPlan
from pipeline.runtime.batch_source import BatchSource, Sink
from pipeline.runtime.core_pool import CorePool
from pipeline.runtime.counts import NodeCounts
from pipeline.runtime.device import Device
from pipeline.runtime.instance import Instance, InstancePlan, Loading
from pipeline.runtime.parts import PLAIN_PARTS, Parts
from pipeline.runtime.pooled_queue import PooledQueue
from pipeline.runtime.task import Task
from service.handlers.restart_policy import DEFAULT_POLICY, RestartPolicy

logger = logging.getLogger(__name__)


class Node:
    """Runs one node of a configuration.

    Args:
        config: its part of the configuration.
        engine: a provider's name or "auto".
        source: where its items come from if not from `submit`.
        policy: when an instance counts as broken, and how often it is rebuilt.
        changed: called after the last instance has gone out of service, and after one is back.
        loading: entered while an instance is built.
        check_result: as that of a `RunPlan`.
        parts: make its queue's rule and its instances' runners.
        pool: shares the cores out between the nodes that compute on the CPU.

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
        policy: RestartPolicy = DEFAULT_POLICY,
        changed: Callable[[], None] = lambda: None,
        loading: Loading = nullcontext,
        check_result: ResultCheck | None = None,
        parts: Parts = PLAIN_PARTS,
        pool: CorePool | None = None,
    ) -> None:
        self.name = config.name
        self._config = config
        self._engine = engine
        self._policy = policy
        self._loading = loading
        self._check_result = check_result
        self._parts = parts
        self._pool = pool
        self._sink: Sink | None = None
        self._jump: Jump | None = None
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
        self.pooled: PooledQueue | None = None
        if source is None and pool is not None and not on_gpu:
            self.pooled = PooledQueue(pool, config.batching_timeout_ms, parts.rule)
        self._queue: BatchQueue = (
            BatchQueue(config.batching_timeout_ms, parts.rule)
            if self.pooled is None
            else self.pooled
        )
        self._source: BatchSource = self._queue if source is None else source
        self._availability = Availability(self.name, self._source, changed)
        self.device_ids = config.device_ids if on_gpu else ()
        # Weights and other things of one GPU are of no use on another.
        self._devices = [
            Device(
                number,
                is_gpu=bool(self.device_ids),
                decoder_lock=DecoderLock() if locks_decoder(config.backend) else None,
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
        return NodeCounts.of(done, self._source.counts, self._availability.working)

    @property
    def batch_range(self) -> tuple[int, int]:
        """Fewest and most rows of a batch that any of its instances takes, once it is started."""
        ranges = [instance.batch_range for instance in self._instances]
        return min(fewest for fewest, _ in ranges), max(most for _, most in ranges)

    @property
    def stuck_instances(self) -> int:
        """How many instances have a batch that takes far longer than usual."""
        return sum(instance.stuck_s() > 0 for instance in self._instances)

    @property
    def threads(self) -> tuple[threading.Thread, ...]:
        """Those of its instances."""
        return tuple(self._threads)

    @property
    def is_pooled(self) -> bool:
        """Whether its batches are run by the pool's threads, once it is started."""
        return self.pooled is not None and self.pooled.is_pooled

    @property
    def work(self) -> object:
        """By what `THIS_THREAD` or its identity tells that a thread works for this node."""
        return self.pooled if self.is_pooled else self._threads[0].ident

    def why_not_ready(self) -> str:
        """Since when and why none of its instances works; "" where one does.

        None does where all are out of service, and where the others have a batch that takes far
        longer than usual.
        """
        why_none, working = self._availability.why_not_ready(), self._availability.working
        stuck_s = [stuck_s for instance in self._instances if (stuck_s := instance.stuck_s())]
        if why_none or not working or len(stuck_s) < working:
            return why_none
        return (
            f"node {self.name!r}: each of its {working} instances in service has been at work on "
            f"one batch for {min(stuck_s):.0f} s or longer, far beyond the usual time"
        )

    @property
    def shared(self) -> SharedResources:
        """What the instances of the first device share."""
        return self._devices[0].shared

    def connect(self, sink: Sink) -> None:
        """Send results straight to that node, instead of telling the caller."""
        self._sink = sink
        if self.pooled is not None:
            self.pooled.sink = sink
            self.pooled.next = sink.pooled if isinstance(sink, Node) else None

    def jump_by(self, jump: Jump) -> None:
        """Let its backends send items to other nodes."""
        self._jump = jump

    def start(self) -> None:
        """Start the instances and wait until all are initialised.

        Raises:
            PipelineConfigError: the first instance's failure; the others are stopped.
        """
        outcomes: SimpleQueue[BaseException | None] = SimpleQueue()
        run = RunPlan(
            self._config,
            self._engine,
            self.instance_num,
            is_last=self._sink is None,
            check_result=self._check_result,
            batch_done=self._source.done,
            jump=self._jump,
        )
        plan = InstancePlan(
            self._source,
            self._sink,
            self._availability,
            self._policy,
            self._loading,
            self._stopping,
            self.pooled,
        )
        for device in self._devices:
            for index in range(self.instance_num):
                name = f"{self.name}-{device.number}-{index}"
                runner = self._parts.runner(run, device, name)
                instance = Instance(plan, runner, device, name)
                thread = threading.Thread(
                    target=instance.run, args=(outcomes,), name=name, daemon=True
                )
                self._instances.append(instance)
                self._threads.append(thread)
                thread.start()
        failures = [outcome for _ in self._threads if (outcome := outcomes.get()) is not None]
        if failures:
            cause = what_it_says(failures[0])
            raise PipelineConfigError(f"[{self.name}] {cause}") from failures[0]

    def submit(self, task: Task, *, caller_waits: bool = False, wakes: bool = True) -> None:
        """Take one item, as a `Sink`; not for a node that has a source of its own."""
        pool, queue = self._pool, self.pooled
        if caller_waits and pool and queue is not None and pool.run_in_caller(queue, task):
            return
        try:
            removed = self._queue.put(task, wakes=wakes)
        except ClosedError as error:
            task.finish(NodeError(self.name, error))
            return
        for overdue in removed:
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
