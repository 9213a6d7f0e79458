"""What a node has done so far, in numbers that only grow: the material of metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum


class LeaveReason(Enum):
    """Why a batch left; `pipeline.runtime.batch_rule` explains each."""

    FULL = "full"
    IDLE = "idle"
    TIMEOUT = "timeout"


@dataclass
class BatchCounts:
    """How many batches left, by reason and by size in rows."""

    by_reason: Counter[LeaveReason] = field(default_factory=Counter)
    by_size: Counter[int] = field(default_factory=Counter)

    def since(self, earlier: BatchCounts) -> BatchCounts:
        """Those that have left since then."""
        return BatchCounts(self.by_reason - earlier.by_reason, self.by_size - earlier.by_size)


@dataclass
class InstanceCounts:
    """What one instance has done; only the thread that runs it writes it.

    Attributes:
        items: that it was given.
        failed_items: that failed in it, or were dropped by it.
        queue_ms: for how long these items had waited, together.
        forward_ms: for how long it ran batches.
        rebuilds: how often it was broken and rebuilt.
    """

    items: int = 0
    failed_items: int = 0
    queue_ms: float = 0.0
    forward_ms: float = 0.0
    rebuilds: int = 0

    @property
    def results(self) -> int:
        """How many items have a result."""
        return self.items - self.failed_items


@dataclass
class NodeCounts(InstanceCounts):
    """The sum over a node's instances, and why and how large batches left its queue.

    Attributes:
        batches: how many left, and why.
        working_instances: how many instances are in service; the one number that may fall.
    """

    batches: BatchCounts = field(default_factory=BatchCounts)
    working_instances: int = 0

    @classmethod
    def of(
        cls, instances: Iterable[InstanceCounts], batches: BatchCounts, working_instances: int
    ) -> NodeCounts:
        """The sum at this moment."""
        total = cls(batches=batches, working_instances=working_instances)
        for instance in instances:
            total.items += instance.items
            total.failed_items += instance.failed_items
            total.queue_ms += instance.queue_ms
            total.forward_ms += instance.forward_ms
            total.rebuilds += instance.rebuilds
        return total

    def since(self, earlier: NodeCounts) -> NodeCounts:
        """What has been done since then; `working_instances` is that of now."""
        return NodeCounts(
            items=self.items - earlier.items,
            failed_items=self.failed_items - earlier.failed_items,
            queue_ms=self.queue_ms - earlier.queue_ms,
            forward_ms=self.forward_ms - earlier.forward_ms,
            rebuilds=self.rebuilds - earlier.rebuilds,
            batches=self.batches.since(earlier.batches),
            working_instances=self.working_instances,
        )
