"""The numbers of the report: pure functions of the raw windows."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from pipeline.measure.sides import ANCHOR, OURS


def percentile(values: Sequence[float], q: float) -> float:
    """TPxx as the load test takes it: `ordered[int(q * n)]`, a value that was measured.

    Raises:
        ValueError: no values.
    """
    if not values:
        raise ValueError("a percentile needs at least one value")
    return sorted(values)[min(int(q * len(values)), len(values) - 1)]


@dataclass(frozen=True)
class Spread:
    """Median and extremes of one value per repeat."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of one or more values."""
        return cls(statistics.median(values), min(values), max(values))


@dataclass(frozen=True)
class Measured:
    """The windows of one part on one side, in the order of the repeats."""

    windows: Sequence[Mapping[str, Any]]

    @property
    def latencies_ms(self) -> list[float]:
        """Of all repeats together."""
        return [ms for window in self.windows for ms in window["latencies_ms"]]

    def percentile_ms(self, q: float) -> float:
        """Of the latencies of all repeats together."""
        return percentile(self.latencies_ms, q)

    def percentiles_ms(self, q: float) -> list[float]:
        """Of the latencies of each repeat."""
        return [percentile(window["latencies_ms"], q) for window in self.windows]

    @property
    def items_per_s(self) -> list[float]:
        """Of each repeat."""
        return [window["items"] / window["wall_s"] for window in self.windows]

    @property
    def wall_us_an_item(self) -> list[float]:
        """Of each repeat."""
        return [1e6 * window["wall_s"] / window["items"] for window in self.windows]

    @property
    def cpu_us_an_item(self) -> list[float]:
        """Of each repeat, of the whole process."""
        return [1e6 * window["cpu_s"] / window["items"] for window in self.windows]

    @property
    def mean_batch(self) -> float:
        """Items of a batch over all repeats."""
        batches: Counter[str] = Counter()
        for window in self.windows:
            batches.update(window["batch_sizes"])
        return sum(int(size) * count for size, count in batches.items()) / batches.total()

    @property
    def cpu_s(self) -> list[float]:
        """CPU time of each repeat."""
        return [float(window["cpu_s"]) for window in self.windows]

    @property
    def refused(self) -> str | None:
        """Why the calls were not let wait, or None."""
        return next((window["refused"] for window in self.windows if window["refused"]), None)

    @property
    def ended_early(self) -> bool:
        """Whether items did not wait as long as the CPU time was measured."""
        return any(window["batches_begun"] for window in self.windows)


def measured(run: Mapping[str, Any], part: str, side: str) -> Measured | None:
    """The windows of a part on a side; None where that side was not measured."""
    windows = [w for w in run["windows"] if w["part"] == part and w["side"] == side]
    return Measured(windows) if windows else None


def sides(run: Mapping[str, Any]) -> list[str]:
    """The sides that were measured, ours first."""
    seen = {window["side"] for window in run["windows"]}
    return [side for side in (OURS, ANCHOR) if side in seen]


def paired_ratio(values: Sequence[float], references: Sequence[float]) -> Spread:
    """Ratios of values to the references of the same repeats."""
    return Spread.of([value / ref for value, ref in zip(values, references, strict=True)])


def idle_share(run: Mapping[str, Any], side: str) -> float:
    """CPU time of a side's process between its windows, as a share of the others' windows' time.

    A side that keeps a core busy while the other one is measured disturbs it.
    """
    own = [window["process_cpu_s"] for window in run["windows"] if window["side"] == side]
    between_s = sum(float(after[0] - before[1]) for before, after in pairwise(own))
    others_s = sum(float(w["elapsed_s"]) for w in run["windows"] if w["side"] != side)
    return between_s / others_s if others_s else 0.0


def bytes_an_item(samples: Sequence[Mapping[str, float]]) -> float | None:
    """Growth of memory over the items: the slope of a line through the second half of the samples.

    In the first half what failed items leave to the garbage collector (an exception and the frames
    that it passed refer to each other) still adds up to what one collection of everything frees.

    Returns:
        Bytes an item, or None for fewer than three samples.
    """
    kept = [sample for sample in samples if sample["items"] >= samples[-1]["items"] / 2]
    items = [sample["items"] for sample in kept]
    if len(set(items)) < 3:
        return None
    memory = [sample["rss_bytes"] for sample in kept]
    return float(statistics.linear_regression(items, memory).slope)
