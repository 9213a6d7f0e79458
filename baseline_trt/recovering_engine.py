"""The baseline's engine, which is rebuilt in the background when it is broken."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import datetime, timezone

import torch

from baseline_trt.inference import EngineUnavailableError, Inference
from engine.interface import Engine
from interfaces.error_text import in_one_line
from service.handlers.restart_policy import DEFAULT_POLICY, RebuildLoop, RestartPolicy

_logger = logging.getLogger(__name__)


class RecoveringEngine:
    """An engine, what runs batches on it, and the thread that rebuilds both.

    The whole engine is loaded again, with its contexts. Until then `inference` raises.

    Args:
        load: makes the engine; raises EngineError where it cannot.
        inference_of: what runs batches on it.
        rule: when the engine counts as broken, and how often it is rebuilt.

    Attributes:
        engine: the one in service, or the last one that was.
        rebuilds: how often it was broken and is back.
    """

    def __init__(
        self,
        load: Callable[[], Engine],
        inference_of: Callable[[Engine], Inference],
        rule: RestartPolicy = DEFAULT_POLICY,
    ) -> None:
        self._load = load
        self._inference_of = inference_of
        self._rule = rule
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._rebuilding = RebuildLoop("the engine", rule, self._stopping)
        self._thread: threading.Thread | None = None
        self._failures = 0
        self.rebuilds = 0
        self._why = ""
        # The first image that worked; in a server the warm-up image.
        self._proven: torch.Tensor | None = None
        self.engine = load()
        self._inference: Inference | None = inference_of(self.engine)

    @property
    def inference(self) -> Inference:
        """What runs batches; EngineUnavailableError while the engine is rebuilt."""
        inference = self._inference
        if inference is None:
            raise EngineUnavailableError(self._why)
        return inference

    @property
    def works(self) -> bool:
        """Whether it is in service, stuck or not."""
        return self._inference is not None

    @property
    def is_stuck(self) -> bool:
        """Whether it is at work on a batch for far longer than usual."""
        return self._stuck_s() > 0

    def why_not_ready(self) -> str:
        """Since when and why the engine is broken or stuck; "" where it works."""
        if stuck_s := self._stuck_s():
            return (
                f"the engine has been at work on one batch for {stuck_s:.0f} s, far beyond the "
                "usual time"
            )
        return self._why

    def worked(self, row: torch.Tensor | None = None) -> None:
        """A batch, or a part of it, has given results.

        Args:
            row: an image of it that has, of shape (1, 3, height, width).
        """
        if self._proven is None:
            self._proven = row
        self._failures = 0
        self._rebuilding.worked()

    def failed(self, inference: Inference, error: BaseException) -> None:
        """A batch has given no result, although each of its images was tried alone.

        After some in a row the engine is tried with an image that has worked before: if that works
        now, the images were at fault, and the engine stays.

        Args:
            inference: what ran the batch.
            error: what it raised last.
        """
        with self._lock:
            if inference is not self._inference:
                # It is being rebuilt already.
                return
            self._failures += 1
            if self._failures < self._rule.failures:
                return
        if self._still_works(inference):
            self._failures = 0
            return
        with self._lock:
            if inference is not self._inference:
                return
            since = datetime.now(timezone.utc).isoformat(timespec="seconds")
            cause = in_one_line(error)
            self._why = f"the engine is broken since {since} ({cause}); it is being rebuilt"
            self._inference = None
            self._thread = threading.Thread(
                target=self._rebuild, args=(inference, cause), name="rebuild-engine", daemon=True
            )
            self._thread.start()

    def close(self) -> None:
        """Free the engine, or stop rebuilding it. No batch is under way."""
        self._stopping.set()
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join()
        if self._inference is not None:
            self._inference.close()
            self.engine.close()

    def _stuck_s(self) -> float:
        inference = self._inference
        return 0.0 if inference is None else inference.stuck_s(self._rule.stuck_s)

    def _still_works(self, inference: Inference) -> bool:
        if self._proven is None:
            return False
        try:
            inference.run(self._proven, None)
        except KeyboardInterrupt:
            raise
        except BaseException:  # noqa: BLE001 (whatever an engine raises)
            return False
        return True

    def _rebuild(self, broken: Inference, cause: str) -> None:
        try:
            broken.close()
            self.engine.close()
        except BaseException as error:  # noqa: BLE001 (what is broken may not close either)
            _logger.warning("the engine could not be closed: %s", in_one_line(error))
        del broken
        self._rebuilding.run(cause, self._build)

    def _build(self) -> None:
        engine = self._load()
        inference = self._inference_of(engine)
        with self._lock:
            self.engine, self._failures = engine, 0
            self._inference, self._why = inference, ""
            self.rebuilds += 1
