"""From the windows of a sweep to its points: one for each variant and number of clients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from loadtest.measured_run import MeasuredRun, WorkloadRun
from loadtest.summary import VariantSummary, summarise


@dataclass(frozen=True)
class SweepPoint:
    """A variant under a number of clients.

    Attributes:
        clients: closed-loop clients.
        client_processes: processes that they shared.
        row: its values over all repeats.
    """

    clients: int
    client_processes: int
    row: VariantSummary

    @property
    def variant(self) -> str:
        """Name of the variant."""
        return self.row.variant.name

    @property
    def qps(self) -> float:
        """Images per second, median of the repeats."""
        return self.row.qps.median

    @property
    def tp99_ms(self) -> float | None:
        """Of the latencies of all repeats together; None where nothing was answered."""
        return self.row.pooled_percentile(0.99)


def sweep_points(run: MeasuredRun, workload: WorkloadRun) -> list[SweepPoint]:
    """All points that were measured, variant by variant, by ascending number of clients."""
    processes = {
        repeat.clients: repeat.client_processes or 1
        for repeat in workload.repeats
        if repeat.clients is not None
    }
    points = []
    for clients, count in sorted(processes.items()):
        repeats = [repeat for repeat in workload.repeats if repeat.clients == clients]
        rows = summarise(run, replace(workload, repeats=repeats))
        points += [SweepPoint(clients, count, row) for row in rows]
    order = [variant.name for variant in workload.variants]
    return sorted(points, key=lambda point: (order.index(point.variant), point.clients))


def best_point(points: Sequence[SweepPoint], tp99_limit_ms: float) -> SweepPoint | None:
    """The most throughput with a TP99 within the limit and every image answered right."""
    able = [
        point
        for point in points
        if point.tp99_ms is not None
        and point.tp99_ms <= tp99_limit_ms
        and not point.row.failed_images
    ]
    return max(able, key=lambda point: point.qps, default=None)
