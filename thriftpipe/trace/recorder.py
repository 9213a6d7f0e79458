"""Parts of a pipeline, and a locked inference, that also tell of what they do."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable

import torch

from baseline_trt.inference import LockedInference
from engine.interface import Engine
from pipeline.backends.interface import Item
from pipeline.runtime.batch_rule import BatchRule
from pipeline.runtime.batch_runner import BatchRunner, RunPlan
from pipeline.runtime.counts import LeaveReason
from pipeline.runtime.device import Device
from pipeline.runtime.fair_order import FairOrder
from pipeline.runtime.parts import Parts
from pipeline.runtime.task import Task
from service.handlers.deadline import Deadline
from thriftpipe.trace.recording import LOCKED, Batch, Request, Step, Visit

BASELINE_ENGINE = "engine"
"""The node and the instance of the baseline's batches."""


class Recorder(Parts):
    """Keeps what happens to the requests that are announced to it.

    Any thread may tell it something: what it does with lists and dictionaries is atomic.

    Attributes:
        instances: the names of each node's instances, by node.
        requests: those that are over.
        steps: what clients' threads did outside of any instance.
    """

    def __init__(self) -> None:
        self.instances: dict[str, list[str]] = {}
        self.requests: list[Request] = []
        self.steps: list[Step] = []
        self._batches: list[Batch] = []
        # Which request each client's thread waits for.
        self._current: dict[int, int] = {}
        self._reasons: dict[Task, LeaveReason] = {}

    def begin(self, request: int) -> None:
        """The calling thread sends that request now; it may have one on its way."""
        self._current[threading.get_ident()] = request

    @property
    def batches(self) -> list[Batch]:
        """Those that have ended, by their beginning; all are there once the pipe is closed."""
        return sorted(self._batches, key=lambda batch: batch.began_s)

    def rule(self, order: FairOrder, timeout_ms: float) -> BatchRule:
        """A rule that tells why each batch leaves."""
        return _RecordedRule(order, timeout_ms, self)

    def runner(self, plan: RunPlan, device: Device, label: str) -> BatchRunner:
        """A runner that tells of each batch."""
        self.instances.setdefault(plan.config.name, []).append(label)
        return _RecordedRunner(plan, device, label, self)

    def left(self, batch: Iterable[Task], reason: LeaveReason) -> None:
        """A batch leaves for that reason."""
        self._reasons.update(dict.fromkeys(batch, reason))

    def visits(self, batch: Iterable[Task]) -> tuple[Visit, ...]:
        """The requests in a batch that is about to run: later their clients may send others."""
        return tuple(
            Visit(self._current[task.call.caller], task.queued_at_s)
            for task in batch
            if task.call.caller in self._current
        )

    def reason(self, batch: Iterable[Task]) -> LeaveReason:
        """Why a batch that is about to run has left."""
        reasons = {self._reasons.pop(task) for task in batch}
        return reasons.pop()

    def keep(self, batch: Batch) -> None:
        """A batch has ended; one of the warm-up has no request."""
        if batch.visits:
            self._batches.append(batch)

    def step(self, name: str, began_s: float, ended_s: float) -> None:
        """The calling thread has done something for its request, outside of any instance."""
        request = self._current.get(threading.get_ident())
        if request is not None:
            self.steps.append(Step(request, name, began_s, ended_s))

    def ran_locked(self, asked_s: float, began_s: float) -> None:
        """The calling thread has run its request's image, with the lock that it had asked for."""
        ended_s = time.monotonic()
        request = self._current.get(threading.get_ident())
        visits = () if request is None else (Visit(request, asked_s),)
        name = BASELINE_ENGINE
        self.keep(Batch(name, name, LOCKED, 1, visits, began_s, ended_s))


class _RecordedRule(BatchRule):
    def __init__(self, order: FairOrder, timeout_ms: float, recorder: Recorder) -> None:
        super().__init__(order, timeout_ms)
        self._recorder = recorder

    def take(
        self, smallest: int, largest: int, now_s: float, share: int | None = None
    ) -> list[Task] | None:
        before = self.counts
        batch = super().take(smallest, largest, now_s, share)
        if batch is not None:
            (reason,) = self.counts.since(before).by_reason
            self._recorder.left(batch, reason)
        return batch

    def leaves_alone(self, task: Task, largest: int) -> None:
        before = self.counts
        super().leaves_alone(task, largest)
        (reason,) = self.counts.since(before).by_reason
        self._recorder.left([task], reason)


class _RecordedRunner(BatchRunner):
    def __init__(self, plan: RunPlan, device: Device, label: str, recorder: Recorder) -> None:
        super().__init__(plan, device)
        self._node = plan.config.name
        self._label = label
        self._recorder = recorder
        self._ended_s = 0.0

    def run(self, batch: list[Task]) -> list[Task]:
        recorder = self._recorder
        visits, reason = recorder.visits(batch), recorder.reason(batch)
        rows = sum(task.rows for task in batch)
        is_inline = batch[0].call.caller == threading.get_ident()
        began_s = self._ended_s = time.monotonic()
        try:
            return super().run(batch)
        finally:
            recorder.keep(
                Batch(
                    *(self._node, self._label, reason.value, rows, visits),
                    *(began_s, self._ended_s, is_inline),
                )
            )

    def _forward(self, items: list[Item]) -> None:
        try:
            super()._forward(items)
        finally:
            # Before the batch's clients and the next nodes know.
            self._ended_s = time.monotonic()


class RecordedInference(LockedInference):
    """The baseline's engine and its lock."""

    def __init__(self, engine: Engine, recorder: Recorder) -> None:
        super().__init__(engine)
        self._recorder = recorder
        self._of_thread = threading.local()

    def run(
        self, batch: torch.Tensor, deadline: Deadline | None
    ) -> tuple[torch.Tensor, float, float]:
        """As a `LockedInference`."""
        self._of_thread.asked_s = time.monotonic()
        return super().run(batch, deadline)

    def _scores(self, on_device: torch.Tensor) -> torch.Tensor:
        began_s = time.monotonic()
        try:
            return super()._scores(on_device)
        finally:
            self._recorder.ran_locked(self._of_thread.asked_s, began_s)
