"""One instance of a node: a thread that takes batches, runs them, and rebuilds what is broken.

Where any thread may run the batches, those of a `CorePool` do, and this one does the rest.

An instance whose last batches gave nothing is tried with an item that has worked before. If that
fails too, its backend is broken: it is taken out of service, closed, and rebuilt in its own thread,
while the others take what comes. Rebuilt are the backend objects, with all that their `init` makes:
for the engine's backend an execution context of the engine that the instances share. The shared
engine itself is loaded again when a context of it was of no use, and no instance of that device
holds one any more. What outlives both, such as a CUDA context that an illegal access has ruined,
only another process can replace.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TypeAlias

from interfaces.error_text import in_one_line
from pipeline.runtime.availability import Availability
from pipeline.runtime.batch_runner import BatchRunner
from pipeline.runtime.batch_source import BatchSource, Sink
from pipeline.runtime.counts import InstanceCounts
from pipeline.runtime.device import Device
from pipeline.runtime.pooled_queue import PooledInstance, PooledQueue
from pipeline.runtime.task import Task, tell_of_batch
from service.handlers.restart_policy import RebuildLoop, RestartPolicy

logger = logging.getLogger(__name__)

# Entered while an instance is built.
Loading: TypeAlias = "Callable[[], AbstractContextManager[None]]"


@dataclass(frozen=True)
class InstancePlan:
    """What the threads of a node's instances have in common.

    Attributes:
        source: where batches come from.
        sink: where results go; None if their way ends here.
        availability: counts those that work.
        policy: when one counts as broken.
        loading: entered while one is built.
        stopping: set when nothing is to be rebuilt any more.
        pooled: the source, where the node's work is shared out with the cores; None where its
            instances' threads do it.
    """

    source: BatchSource
    sink: Sink | None
    availability: Availability
    policy: RestartPolicy
    loading: Loading
    stopping: threading.Event
    pooled: PooledQueue | None = None


class Instance:
    """Runs batches in a thread of its own, or looks after the backends that a pool's threads use.

    Args:
        plan: what it has in common with the others.
        runner: what it runs batches with.
        device: where it works.
        label: its name in the log.
    """

    def __init__(self, plan: InstancePlan, runner: BatchRunner, device: Device, label: str) -> None:
        self._plan = plan
        self._device = device
        self._label = label
        self._runner = runner
        # The batch at work, later what of it is not handed on.
        self._held: list[Task] = []
        # What the pool knows it by; None where only its own thread runs batches.
        self._own: PooledInstance | None = None

    @property
    def counts(self) -> InstanceCounts:
        """What it has done."""
        return self._runner.counts

    @property
    def batch_range(self) -> tuple[int, int]:
        """Fewest and most rows of its batches, once it is built."""
        return self._runner.smallest, self._runner.largest

    def stuck_s(self) -> float:
        """For how long a batch has run that is far beyond the usual time; 0 where none is."""
        return self._runner.stuck_s(self._plan.policy.stuck_s)

    def run(self, outcomes: SimpleQueue[BaseException | None]) -> None:
        """Initialise, report that, and run batches until the source is closed.

        Whatever is raised meanwhile, and wherever: the items of the batch at work get an outcome,
        and the instance is rebuilt.
        """
        plan, runner = self._plan, self._runner
        try:
            with plan.loading():
                runner.build()
        except BaseException as error:  # noqa: BLE001 (reported by `start`, whatever it is)
            outcomes.put(error)
            return
        plan.availability.enter()
        self._enter_pool()
        outcomes.put(None)
        loop = RebuildLoop(self._label, plan.policy, plan.stopping, self._device.rebuilding)
        while True:
            results_before = runner.counts.results
            try:
                broken = self._serve()
            except BaseException as error:
                logger.exception("%s: an error that nothing expected", self._label)
                broken = in_one_line(error)
                held, self._held = self._held, []
                runner.abandon(held, error)
                tell_of_batch(held)
            if not broken:
                break
            plan.availability.leave(broken)
            runner.close()
            has_worked = runner.counts.results > results_before
            if has_worked:
                loop.worked()
            if not self._rebuild(loop, broken, doubtful=not has_worked):
                return
            runner.counts.rebuilds += 1
            plan.availability.enter()
            self._enter_pool()
        runner.close()

    def _rebuild(self, loop: RebuildLoop, cause: str, *, doubtful: bool) -> bool:
        """Build the backends again; False if the node is stopped instead."""

        def attempt() -> None:
            nonlocal doubtful
            with self._plan.loading():
                # Once an attempt has failed, what is shared may be broken.
                first, doubtful = doubtful, True
                self._runner.build(doubtful=first)

        return loop.run(cause, attempt)

    def _serve(self) -> str:
        """Run batches until the backend is broken: why it is; or "" once the source is closed."""
        plan, runner, lock = self._plan, self._runner, self._device.decoder_lock
        if plan.pooled is not None and self._own is not None:
            return self._serve_pool(plan.pooled, self._own)
        source, sink, most_failures = plan.source, plan.sink, plan.policy.failures
        smallest, largest = runner.smallest, runner.largest
        while True:
            if lock is not None:
                lock.acquire()
            try:
                batch = source.take(smallest, largest)
                if batch is not None:
                    self._held = batch
                    self._held = going_on = runner.run(batch)
                    while going_on and sink is not None:
                        # From then on the item is the next node's.
                        sink.submit(going_on[0])
                        del going_on[0]
            finally:
                if lock is not None:
                    lock.release()
            if batch is None:
                return ""
            tell_of_batch(batch)
            if runner.failures.length >= most_failures:
                cause = runner.failures.cause
                if not self._still_works(cause):
                    return cause

    def _enter_pool(self) -> None:
        """Let the pool use what has been built, where any thread may."""
        plan = self._plan
        if plan.pooled is not None and self._runner.may_run_anywhere:
            failures = plan.policy.failures
            self._own = PooledInstance(plan.pooled, self._runner, self._label, failures)
            plan.pooled.add(self._own)

    def _serve_pool(self, queue: PooledQueue, own: PooledInstance) -> str:
        """Do the same with the pool's threads at work: look after what they find broken."""
        while True:
            trouble = queue.wait(own)
            if trouble is None:
                return ""
            if trouble.is_broken or not self._still_works(trouble.cause):
                return trouble.cause
            own.trouble = None
            queue.add(own)

    def _still_works(self, cause: str) -> bool:
        """Whether the last batches, failed for that cause, were faulty, and not the backend."""
        lock = self._device.decoder_lock
        if lock is not None:
            lock.acquire()
        try:
            works = self._runner.still_works()
        finally:
            if lock is not None:
                lock.release()
        if works:
            logger.warning(
                "%s: %d batches in a row gave no result (%s), and another item does: it stays",
                *(self._label, self._plan.policy.failures, cause),
            )
        return works
