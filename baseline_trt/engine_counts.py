"""What the baseline's engine has done: the same numbers as those of a node of the pipeline."""

from __future__ import annotations

import threading
from collections import Counter

from interfaces.stats import NodeStats


class EngineCounts:
    """For all threads that use the engine."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._items = self._failed = 0
        self._queue_ms = self._forward_ms = 0.0
        self._sizes: Counter[int] = Counter()

    def items_done(self, items: int, failed: int) -> None:
        """So many images were given to the engine, of which some have no scores."""
        with self._lock:
            self._items += items
            self._failed += failed

    def batch_done(self, size: int, waited_ms: float, ran_ms: float) -> None:
        """A batch has run, after its images had waited for the engine."""
        with self._lock:
            self._sizes[size] += 1
            self._queue_ms += size * waited_ms
            self._forward_ms += ran_ms

    def read(
        self, *, rebuilds: int, instances: int, working_instances: int, stuck_instances: int
    ) -> NodeStats:
        """The numbers so far, with those that the engine itself knows."""
        with self._lock:
            return NodeStats(
                items=self._items,
                failed_items=self._failed,
                queue_ms=self._queue_ms,
                forward_ms=self._forward_ms,
                batches_by_size=dict(self._sizes),
                rebuilds=rebuilds,
                instances=instances,
                working_instances=working_instances,
                stuck_instances=stuck_instances,
            )
