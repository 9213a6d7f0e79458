"""The baseline's engine, which is loaded anew in the background when it is broken."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import datetime, timezone

from baseline_trt.inference import EngineUnavailableError, Inference
from engine.interface import Engine
from service.error_text import in_one_line
from service.rebuild_rule import DEFAULT_RULE, RebuildRule

_logger = logging.getLogger(__name__)


class MendedEngine:
    """An engine, what runs batches on it, and the thread that replaces both.

    Loaded anew is the whole engine, with its contexts. While that lasts, `inference` raises.

    Args:
        load: makes the engine; EngineError where that cannot be.
        inference_of: what runs batches on it.
        rule: when it counts as broken, and how often it is loaded anew.

    Attributes:
        engine: the one at work, or the last one that was.
    """

    def __init__(
        self,
        load: Callable[[], Engine],
        inference_of: Callable[[Engine], Inference],
        rule: RebuildRule = DEFAULT_RULE,
    ) -> None:
        self._load = load
        self._inference_of = inference_of
        self._rule = rule
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._failures = 0
        self._attempts = 0
        self._why = ""
        self.engine = load()
        self._inference: Inference | None = inference_of(self.engine)

    @property
    def inference(self) -> Inference:
        """What runs batches; EngineUnavailableError while the engine is loaded anew."""
        inference = self._inference
        if inference is None:
            raise EngineUnavailableError(self._why)
        return inference

    def why_not_ready(self) -> str:
        """Since when and why there is no engine; "" where there is one."""
        return self._why

    def worked(self) -> None:
        """A batch, or a part of it, has come through."""
        self._failures = self._attempts = 0

    def failed(self, inference: Inference, error: Exception) -> None:
        """Nothing of a batch has come through, although each image was tried alone.

        Args:
            inference: what ran it.
            error: what it raised last.
        """
        with self._lock:
            if inference is not self._inference:
                # It is being replaced already.
                return
            self._failures += 1
            if self._failures < self._rule.failures:
                return
            since = datetime.now(timezone.utc).isoformat(timespec="seconds")
            cause = in_one_line(error)
            self._why = f"the engine is broken since {since} ({cause}); it is being loaded anew"
            self._inference = None
            self._thread = threading.Thread(
                target=self._replace, args=(inference, cause), name="load-anew", daemon=True
            )
            self._thread.start()

    def close(self) -> None:
        """Free the engine, or stop loading one. No batch is under way."""
        self._stopping.set()
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join()
        if self._inference is not None:
            self._inference.close()
            self.engine.close()

    def _replace(self, broken: Inference, cause: str) -> None:
        try:
            broken.close()
            self.engine.close()
        except Exception as error:  # noqa: BLE001 (what is broken may not close either)
            _logger.warning("the engine could not be closed: %s", in_one_line(error))
        del broken
        while True:
            self._attempts += 1
            wait_s = self._rule.wait_s(self._attempts)
            _logger.error(
                "the engine is out of service: %s; attempt %d to load it anew follows in %g s",
                cause,
                self._attempts,
                wait_s,
            )
            if self._stopping.wait(wait_s):
                return
            try:
                engine = self._load()
                inference = self._inference_of(engine)
            except Exception as error:  # noqa: BLE001 (tried again, whatever it is)
                cause = in_one_line(error)
                continue
            _logger.info("the engine is back in service after attempt %d", self._attempts)
            with self._lock:
                self.engine, self._failures = engine, 0
                self._inference, self._why = inference, ""
            return
