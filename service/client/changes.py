"""What has happened at a server between two of its `stats`, in numbers that people read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from interfaces.stats import Histogram, NodeStats, Stats, since


@dataclass(frozen=True)
class Latency:
    """Calls of one method, or images in one stage.

    Attributes:
        per_s: how many a second.
        p50_ms: the time that half of them did not exceed; None where there were none.
        p99_ms: likewise 99 %.
    """

    per_s: float
    p50_ms: float | None
    p99_ms: float | None


@dataclass(frozen=True)
class NodeChange:
    """What a node has done.

    Attributes:
        items_per_s: items that it was given.
        failed_per_s: of these.
        queue_ms: mean wait of an item; None where there was none.
        forward_ms: mean time of a batch; None where there was none.
        busy: share of the time of its instances in service in which they ran batches.
        batch_rows: mean rows of a batch; None where there was none.
        reasons: why batches left, to the share of them.
        node: the node as it is now.
    """

    items_per_s: float
    failed_per_s: float
    queue_ms: float | None
    forward_ms: float | None
    busy: float
    batch_rows: float | None
    reasons: Mapping[str, float]
    node: NodeStats


@dataclass(frozen=True)
class Change:
    """What a server has done.

    Attributes:
        duration_s: in how much time, by the server's own clock.
        calls_per_s: outcome to calls.
        images_per_s: outcome to images.
        refused_per_s: reason to calls.
        latencies: by method.
        stages: by stage.
        nodes: by name.
        worker_calls_per_s: worker to calls.
    """

    duration_s: float
    calls_per_s: Mapping[str, float]
    images_per_s: Mapping[str, float]
    refused_per_s: Mapping[str, float]
    latencies: Mapping[str, Latency]
    stages: Mapping[str, Latency]
    nodes: Mapping[str, NodeChange]
    worker_calls_per_s: Mapping[int, float]


def change(later: Stats, earlier: Stats | None) -> Change:
    """What has happened in between.

    Args:
        later: the newer one.
        earlier: the older one. If that is another server's, which was there before, or None, it is
            all that has happened since the server was started.
    """
    if earlier is None or _was_started_between(later, earlier):
        earlier = Stats()
    duration_s = max(later.uptime_s - earlier.uptime_s, 1e-9)
    done = since(later, earlier)

    def rates(counts: Mapping[str, int]) -> dict[str, float]:
        return {name: count / duration_s for name, count in counts.items() if count}

    def latencies(histograms: Mapping[str, Histogram]) -> dict[str, Latency]:
        return {
            name: Latency(
                histogram.count / duration_s,
                histogram.quantile_ms(0.5, later.bounds_ms),
                histogram.quantile_ms(0.99, later.bounds_ms),
            )
            for name, histogram in histograms.items()
        }

    before = {(one.worker, one.pid): one.calls for one in earlier.workers}
    return Change(
        duration_s=duration_s,
        calls_per_s=rates(done.calls_by_outcome()),
        images_per_s=rates(done.images),
        refused_per_s=rates(done.refusals),
        latencies=latencies(done.latencies),
        stages=latencies(done.stages),
        nodes={
            name: _node_change(done.nodes[name], node, duration_s)
            for name, node in later.nodes.items()
        },
        worker_calls_per_s={
            one.worker: (one.calls - before.get((one.worker, one.pid), 0)) / duration_s
            for one in later.workers
        },
    )


def _was_started_between(later: Stats, earlier: Stats) -> bool:
    """Whether they are of two servers, one after the other: counts never fall."""
    done = since(later, earlier)
    counts = [*done.calls_by_outcome().values(), *done.images.values(), done.connections_opened]
    return earlier.uptime_s > later.uptime_s or min(counts) < 0


def _node_change(done: NodeStats, now: NodeStats, duration_s: float) -> NodeChange:
    rows = sum(size * count for size, count in done.batches_by_size.items())
    reasons = {reason: count for reason, count in done.batches_by_reason.items() if count > 0}
    of_all = sum(reasons.values())
    instances_s = duration_s * max(1, now.working_instances)
    return NodeChange(
        items_per_s=done.items / duration_s,
        failed_per_s=done.failed_items / duration_s,
        queue_ms=done.queue_ms / done.items if done.items else None,
        forward_ms=done.forward_ms / done.batches if done.batches else None,
        busy=min(1.0, done.forward_ms / 1000 / instances_s),
        batch_rows=rows / done.batches if done.batches else None,
        reasons={reason: count / of_all for reason, count in reasons.items()},
        node=now,
    )
