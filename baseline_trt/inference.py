"""One engine for all request threads: behind a lock, or without it where the engine allows."""

from __future__ import annotations

import threading
import time
from typing import Protocol

import torch

from engine.interface import Engine, ExecutionContext
from service.handler import Deadline, DeadlineExceededError, ImageFailure


class EngineUnavailableError(ImageFailure):
    """The engine is broken and being loaded anew."""


class Inference(Protocol):
    """Runs one batch; called from many threads at once."""

    def run(
        self, batch: torch.Tensor, deadline: Deadline | None
    ) -> tuple[torch.Tensor, float, float]:
        """Scores of shape (rows, classes), milliseconds waited, milliseconds run.

        Raises:
            DeadlineExceededError: the deadline passed, or the client went, before the batch could
                run.
            EngineUnavailableError: it was closed before the batch could run.
        """

    def close(self) -> None:
        """Run nothing any more."""


class LockedInference:
    """One context and one lock: a TensorRT context must not run twice at a time."""

    def __init__(self, engine: Engine) -> None:
        self._context = engine.create_context()
        self._lock = threading.Lock()
        self._closed = False

    def run(
        self, batch: torch.Tensor, deadline: Deadline | None
    ) -> tuple[torch.Tensor, float, float]:
        """Wait for the lock, then run."""
        arrived_s = time.monotonic()
        if deadline is None:
            self._lock.acquire()
        elif not self._lock.acquire(timeout=max(0.0, deadline.remaining_s())):
            raise DeadlineExceededError(
                f"not finished within timeout_ms = {deadline.timeout_ms}: waited for the lock"
            )
        try:
            if deadline is not None:
                deadline.check()
            if self._closed:
                raise EngineUnavailableError("the engine broke while the call waited for the lock")
            started_s = time.monotonic()
            scores = self._context.run([(batch,)])[0].clone()
        finally:
            self._lock.release()
        return scores, (started_s - arrived_s) * 1000, (time.monotonic() - started_s) * 1000

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

    def close(self) -> None:
        """Nothing to free: the contexts of an engine that is thread-safe go with the threads."""

    def _context(self) -> ExecutionContext:
        if not hasattr(self._of_thread, "context"):
            self._of_thread.context = self._engine.create_context()
        context: ExecutionContext = self._of_thread.context
        return context
