"""When an instance or engine counts as broken, and how it is rebuilt.

The same for both handlers: the baseline's engine and each instance of a pipeline.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from interfaces.error_text import in_one_line

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RestartPolicy:
    """Rebuilds what broke after waits that double, since it may need time or stay broken.

    Attributes:
        failures: batches in a row without any result, although no input is known to be at fault,
            after which it is tried with an input that has worked before; if that fails, too,
            it counts as broken.
        first_wait_s: pause before the first attempt to rebuild it.
        longest_wait_s: pause before each attempt in the end.
        stuck_s: a batch that takes longer, and ten times as long as usual, counts as stuck; 0 for
            never.
    """

    failures: int = 3
    first_wait_s: float = 1.0
    longest_wait_s: float = 30.0
    stuck_s: float = 10.0

    def wait_s(self, attempt: int) -> float:
        """The pause before an attempt; the first one is number 1."""
        # Beyond 2^32 the power says nothing more, and would overflow some day.
        return min(self.longest_wait_s, self.first_wait_s * 2.0 ** min(attempt - 1, 32))


DEFAULT_POLICY = RestartPolicy()


class RebuildLoop:
    """Rebuilds one engine or instance, in the calling thread, until it works or the server stops.

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
