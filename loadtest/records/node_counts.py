"""What nodes of a server have done, as numbers that only grow, and what they did in a window."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from loadtest.records.run import Window

_DETAIL = "nodes"


@dataclass(frozen=True)
class NodeCounts:
    """One node, or the engine of the baseline.

    Attributes:
        items: that it was given.
        failed_items: of these, those that failed or were dropped.
        queue_ms: for how long its items waited, together.
        forward_ms: for how long its instances ran batches, together.
        batches_by_size: images in a batch to how many batches.
        batches_by_reason: why a batch left ("full", "idle", "timeout") to how many batches.
    """

    items: int
    failed_items: int
    queue_ms: float
    forward_ms: float
    batches_by_size: Mapping[int, int]
    batches_by_reason: Mapping[str, int]

    @classmethod
    def of(cls, told: Any) -> NodeCounts:
        """Of what a server's `stats` says of a node."""
        return cls(**{entry.name: getattr(told, entry.name) for entry in fields(cls)})

    def since(self, earlier: NodeCounts) -> NodeCounts:
        """What was done since then."""
        return NodeCounts(
            items=self.items - earlier.items,
            failed_items=self.failed_items - earlier.failed_items,
            queue_ms=round(self.queue_ms - earlier.queue_ms, 3),
            forward_ms=round(self.forward_ms - earlier.forward_ms, 3),
            batches_by_size=_growth(self.batches_by_size, earlier.batches_by_size),
            batches_by_reason=_growth(self.batches_by_reason, earlier.batches_by_reason),
        )

    @staticmethod
    def of_window(window: Window) -> dict[str, NodeCounts]:
        """What a measured window's details hold, by node; empty where its server told nothing."""
        found = {}
        for node, kept in window.details.get(_DETAIL, {}).items():
            sizes = {int(size): count for size, count in kept["batches_by_size"].items()}
            found[node] = NodeCounts(**{**kept, "batches_by_size": sizes})
        return found


def as_details(counts: Mapping[str, NodeCounts]) -> dict[str, Any]:
    """The details of a window: the counterpart of `NodeCounts.of_window`."""
    return {_DETAIL: {node: asdict(own) for node, own in counts.items()}} if counts else {}


def growth(
    before: Mapping[str, NodeCounts], after: Mapping[str, NodeCounts]
) -> dict[str, NodeCounts]:
    """What nodes did between two moments; those that are in both."""
    return {node: own.since(before[node]) for node, own in after.items() if node in before}


def _growth(after: Mapping[Any, int], before: Mapping[Any, int]) -> dict[Any, int]:
    return {key: n for key, count in sorted(after.items()) if (n := count - before.get(key, 0))}
