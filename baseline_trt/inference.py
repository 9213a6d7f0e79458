"""One engine for all request threads: behind a lock, or without it where the engine allows."""

from __future__ import annotations

import threading
import time
from typing import Protocol

import torch

from engine.interface import Engine, ExecutionContext
from service.handlers.batch_clock import BatchClock
from service.handlers.deadline import Deadline
from service.handlers.outcomes import DeadlineExceededError, ImageFailure
from service.handlers.turn_lock import TurnLock


class EngineUnavailableError(ImageFailure):
    """The engine is broken and being rebuilt."""


class Inference(Protocol):
    """Runs one batch; called from many threads at once."""

    def run(
        self, batch: torch.Tensor, deadline: Deadline | None
    ) -> tuple[torch.Tensor, float, float]:
        """Scores of shape (rows, classes), milliseconds waited, milliseconds copied and run.

        Raises:
            DeadlineExceededError: the deadline passed, or the client went, before the batch could
                run.
            EngineUnavailableError: it was closed before the batch could run.
        """

    def stuck_s(self, least_s: float) -> float:
        """For how long a batch has run that keeps all others waiting; see `BatchClock`."""

    def close(self) -> None:
        """Run nothing any more."""


class LockedInference:
    """One context and one lock: a TensorRT context must not run twice at a time.

    A call of many images gets the lock for its next one after the calls that wait.
    A batch is copied to the engine's device before the lock is asked for, as in the quick-start.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._context = engine.create_context()
        self._lock = TurnLock()
        self._clock = BatchClock()
        self._closed = False

    def run(
        self, batch: torch.Tensor, deadline: Deadline | None
    ) -> tuple[torch.Tensor, float, float]:
        """Copy the batch to the device, wait for the lock, then run."""
        copying_since_s = time.monotonic()
        on_device = self._engine.to_device(batch)
        arrived_s = time.monotonic()
        remaining_s = None if deadline is None else deadline.remaining_s()
        if not self._lock.acquire(remaining_s) and deadline is not None:
            raise DeadlineExceededError(
                f"not finished within timeout_ms = {deadline.timeout_ms}: waited for the lock"
            )
        try:
            if deadline is not None:
                deadline.check()
            if self._closed:
                raise EngineUnavailableError("the engine broke while the call waited for the lock")
            started_s = time.monotonic()
            self._clock.begin(started_s)
            scores = self._scores(on_device)
        finally:
            self._clock.end(time.monotonic())
            self._lock.release()
        ran_s = time.monotonic() - started_s + arrived_s - copying_since_s
        return scores, (started_s - arrived_s) * 1000, ran_s * 1000

    def _scores(self, on_device: torch.Tensor) -> torch.Tensor:
        """Run a batch, with the lock held."""
        return self._context.run([(on_device,)])[0].clone()

    def stuck_s(self, least_s: float) -> float:
        """Of the batch that has the lock."""
        return self._clock.stuck_s(least_s)

    def close(self) -> None:
        """Free the context once the batch at work is done; those that wait for the lock fail."""
        self._closed = True
        with self._lock:
            self._context.close()


class LockFreeInference:
    """A context for each calling thread and no lock, on an engine that is thread-safe.

    The control of the comparison: what the lock alone costs.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._of_thread = threading.local()

    def run(
        self, batch: torch.Tensor, deadline: Deadline | None
    ) -> tuple[torch.Tensor, float, float]:
        """Run at once."""
        if deadline is not None:
            deadline.check()
        started_s = time.monotonic()
        scores = self._context().run([(batch,)])[0].clone()
        return scores, 0.0, (time.monotonic() - started_s) * 1000

    def stuck_s(self, least_s: float) -> float:  # noqa: ARG002 (for those that have one engine)
        """0: no batch keeps another one waiting."""
        return 0.0

    def close(self) -> None:
        """Nothing to free: the contexts of an engine that is thread-safe go with the threads."""

    def _context(self) -> ExecutionContext:
        if not hasattr(self._of_thread, "context"):
            self._of_thread.context = self._engine.create_context()
        context: ExecutionContext = self._of_thread.context
        return context
