"""How many instances of a node work, and what becomes of its items while none does."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from datetime import datetime, timezone

from pipeline.errors import NodeError, NoInstanceError
from pipeline.runtime.batch_source import BatchSource
from pipeline.runtime.task import Task, tell_of_batch

logger = logging.getLogger(__name__)


class Availability:
    """Counts the instances that work. While there is none, the node's items fail at once.

    Args:
        node: the node's name.
        source: where the items come from.
        changed: called after the last instance has gone, and after one is back.
    """

    def __init__(self, node: str, source: BatchSource, changed: Callable[[], None]) -> None:
        self._node = node
        self._source = source
        self._changed = changed
        self._lock = threading.Lock()
        self._why_none = ""
        self.working = 0

    def enter(self) -> None:
        """An instance is ready for batches."""
        with self._lock:
            self.working += 1
            is_back = bool(self._why_none)
            if is_back:
                self._source.accept()
                self._why_none = ""
        if is_back:
            logger.info("%s has a working instance again", self._node)
            self._changed()

    def leave(self, cause: str) -> None:
        """An instance is broken; what it held has been answered."""
        with self._lock:
            self.working -= 1
            is_last = self.working == 0
            if is_last:
                since = datetime.now(timezone.utc).isoformat(timespec="seconds")
                self._why_none = (
                    f"node {self._node!r} has no working instance since {since} "
                    f"({cause}); it is being rebuilt"
                )
                self._source.refuse(self._fail)
        if is_last:
            logger.error("%s: its items fail until an instance is back", self._node)
            self._changed()

    def why_not_ready(self) -> str:
        """Since when and why no instance works; "" where one does."""
        return self._why_none

    def _fail(self, tasks: Sequence[Task]) -> None:
        # Without the lock: the source's thread that calls this is waited for while it is held.
        cause = NoInstanceError(self._why_none or f"node {self._node!r} had no working instance")
        for task in tasks:
            task.finish(NodeError(self._node, cause))
        tell_of_batch(tasks)
