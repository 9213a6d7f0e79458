"""What nodes have done, as the `stats` of a server tell it."""

from __future__ import annotations

from collections.abc import Mapping

from interfaces.stats import NodeStats
from pipeline.runtime.counts import LeaveReason
from pipeline.runtime.node import Node


def nodes_stats(nodes: Mapping[str, Node]) -> dict[str, NodeStats]:
    """The numbers of each of the nodes, by name."""
    return {name: _node_stats(node) for name, node in nodes.items()}


def _node_stats(node: Node) -> NodeStats:
    counts = node.counts
    return NodeStats(
        items=counts.items,
        failed_items=counts.failed_items,
        queue_ms=counts.queue_ms,
        forward_ms=counts.forward_ms,
        batches_by_size=dict(counts.batches.by_size),
        batches_by_reason={
            reason.value: counts.batches.by_reason[reason] for reason in LeaveReason
        },
        rebuilds=counts.rebuilds,
        instances=node.instance_num * max(1, len(node.device_ids)),
        working_instances=counts.working_instances,
        stuck_instances=node.stuck_instances,
    )
