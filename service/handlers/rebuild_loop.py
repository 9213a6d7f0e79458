"""Rebuilding what is broken, with growing pauses, until it works again or the server stops.

The one loop for both handlers: the baseline's engine and each instance of a pipeline.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from service.errors import in_one_line
from service.handlers.restart_policy import RestartPolicy

_logger = logging.getLogger(__name__)


class RebuildLoop:
    """Rebuilds one engine or instance, in the calling thread.

    Args:
        label: its name in the log.
        rule: how long the pauses are.
        stopping: set when the server stops; it ends a pause, and no attempt begins after it.
        one_at_a_time: held during an attempt, where others must not be rebuilt meanwhile.
    """

    def __init__(
        self,
        label: str,
        rule: RestartPolicy,
        stopping: threading.Event,
        one_at_a_time: AbstractContextManager[object] | None = None,
    ) -> None:
        self._label = label
        self._rule = rule
        self._stopping = stopping
        self._one_at_a_time = one_at_a_time or nullcontext()
        self._attempts = 0

    def worked(self) -> None:
        """What was built has given results: the next pauses begin small again."""
        self._attempts = 0

    def run(self, cause: str, build: Callable[[], None]) -> bool:
        """Call `build` until it returns.

        Args:
            cause: what is broken, for the log.
            build: one attempt; whatever it raises is the cause of the next one.

        Returns:
            True once rebuilt; False where the server stops instead.
        """
        while True:
            self._attempts += 1
            wait_s = self._rule.wait_s(self._attempts)
            _logger.error(
                "%s is out of service: %s; attempt %d to rebuild it follows in %g s",
                *(self._label, cause, self._attempts, wait_s),
            )
            if self._stopping.wait(wait_s):
                return False
            with self._one_at_a_time:
                if self._stopping.is_set():
                    return False
                try:
                    build()
                except BaseException as error:  # noqa: BLE001 (tried again, whatever it is)
                    cause = in_one_line(error)
                    continue
            _logger.info("%s is back in service after attempt %d", self._label, self._attempts)
            return True
