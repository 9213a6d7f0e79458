"""A variant over its windows: what was measured of it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from statistics import fmean, median
from typing import Any

from loadtest.records.metrics import mean_usage, window_usage
from loadtest.records.run import Record, Run, VariantRun, Window
from loadtest.servers.variants import split_workers
from measurement.statistics import (
    Interval,
    Spread,
    concurrency,
    percentile,
    percentile_interval,
)


class MeasuredVariant:
    """What a variant did in its windows. None is "not available".

    Latencies are of requests that were answered.

    Args:
        variant: what ran.
        windows: its own, at least one.
        run: settings of the whole measurement.

    Attributes:
        offered_per_s: requests per second of an open loop; None for clients that wait.
    """

    def __init__(self, variant: VariantRun, windows: Sequence[Window], run: Run) -> None:
        self.variant = variant
        self.name = variant.name
        self.windows = windows
        self.clients = windows[0].clients or int(run.settings["request_client"])
        self.client_processes = windows[0].client_processes or 1
        self.offered_per_s = windows[0].offered_per_s
        self._batch = int(run.settings["request_batch"])

    @property
    def base(self) -> str:
        """The variant, whatever its number of processes is."""
        return split_workers(self.name)[0]

    @property
    def processes(self) -> int:
        """How many processes served."""
        told = (self.variant.server or {}).get("workers")
        return int(told or split_workers(self.name)[1] or 1)

    @property
    def batches(self) -> bool:
        """False where its server says that every image runs alone."""
        settings = (self.variant.server or {}).get("settings", {})
        return bool(settings.get("max_batch_size") != "1")

    @cached_property
    def rates(self) -> dict[int, float]:
        """Repeat to images with a right answer per second."""
        return {window.repeat: self._images_per_s(window) for window in self.windows}

    def _images_per_s(self, window: Window) -> float:
        if window.images_per_s is not None:
            return window.images_per_s
        right = sum(self._batch - record.failed_images for record in window.records)
        return right / window.length_s

    @cached_property
    def qps(self) -> Spread:
        """Images per second over the repeats."""
        return Spread.of([*self.rates.values()])

    @cached_property
    def records(self) -> list[Record]:
        """Of all windows."""
        return [record for window in self.windows for record in window.records]

    @property
    def requests(self) -> int:
        """Requests in all repeats; 0 for a variant without requests."""
        return len(self.records)

    @property
    def images(self) -> int:
        """Images of these requests."""
        return self.requests * self._batch

    @cached_property
    def failed_images(self) -> int:
        """Images without a right answer."""
        return sum(record.failed_images for record in self.records)

    @cached_property
    def _latencies_by_window(self) -> list[list[float]]:
        return [
            sorted(r.latency_ms for r in window.records if r.failed_images < self._batch)
            for window in self.windows
        ]

    @cached_property
    def latencies_ms(self) -> list[float]:
        """Of all repeats together, ascending."""
        return sorted(ms for latencies in self._latencies_by_window for ms in latencies)

    def tp_ms(self, q: float) -> float | None:
        """TPxx of all repeats together."""
        return percentile(self.latencies_ms, q) if self.latencies_ms else None

    def tp_interval(self, q: float) -> Interval | None:
        """The confidence interval of the same."""
        return percentile_interval(self.latencies_ms, q) if self.latencies_ms else None

    def tp_spread(self, q: float) -> Spread | None:
        """TPxx over the repeats."""
        known = [percentile(latencies, q) for latencies in self._latencies_by_window if latencies]
        return Spread.of(known) if known else None

    @cached_property
    def _lags_ms(self) -> list[float]:
        return sorted(record.lag_ms for record in self.records)

    def lag_ms(self, q: float) -> float | None:
        """Of an open loop, how late the load generator itself was; part of the latencies."""
        return None if self.offered_per_s is None else percentile(self._lags_ms, q)

    def own_lag_ms(self, q: float) -> float:
        """The same of any loop: of clients that wait, how long replies lay unread at most."""
        return percentile(self._lags_ms, q)

    @cached_property
    def concurrency(self) -> float | None:
        """QPS x mean latency, median of the repeats."""
        known = [
            concurrency(len(latencies), fmean(latencies), window.length_s)
            for window, latencies in zip(self.windows, self._latencies_by_window, strict=True)
            if latencies
        ]
        return median(known) if known else None

    @cached_property
    def usages(self) -> list[dict[str, Any]]:
        """The metrics of each window."""
        return [
            window_usage([s.at_s for s in w.samples], [s.values for s in w.samples], w.length_s)
            for w in self.windows
        ]

    @cached_property
    def usage(self) -> dict[str, Any]:
        """The metrics over all windows."""
        return mean_usage(self.usages)
