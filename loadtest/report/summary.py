"""From a measured run to the rows of its tables."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean, median
from typing import Any

from loadtest.records.metrics import mean_usage, window_usage
from loadtest.records.run import CLIENTS, Record, Run, VariantRun, Window, WorkloadRun
from loadtest.servers.variants import BASELINE, IN_PROCESS, server_processes, split_workers
from measurement.statistics import (
    Interval,
    Ratio,
    Spread,
    concurrency,
    paired_ratio,
    percentile,
    percentile_interval,
)

_NOISE_PERCENT = 10.0
_STABLE_SHARE = 0.10
_LITTLE_SHARE = 0.05
_TAIL_SHARE = 0.05
LAG_SHARE = 0.10
"""A load generator's own lag may be so much of the TP99, or of the limit that it has to hold."""
BUSY_CLIENT_PERCENT = 80.0
"""So much of a core is nearly all that a client process can use."""
_CLOCK_SHARE = 0.01
_SHOWN_ERRORS = 3
# Not one within a label, which is quoted.
_NUMBER = re.compile(r"(?<![\w'.])\d+(?:\.\d+)?(?![\w'])")


class Row:
    """A variant over its windows: one row of the tables. None is "not available".

    Latencies are of requests that were answered. What compares with another variant pairs the same
    repeats: of a run that was stopped the last repeat may pair with nothing.

    Args:
        variant: what ran.
        windows: its own, at least one.
        run: settings of the whole measurement.
        rows: all rows of the same table by name, this one among them.
    """

    def __init__(
        self, variant: VariantRun, windows: Sequence[Window], run: Run, rows: Mapping[str, Row]
    ) -> None:
        self.variant = variant
        self.name = variant.name
        self.windows = windows
        self.clients = windows[0].clients or int(run.settings["request_client"])
        self.client_processes = windows[0].client_processes or 1
        self.offered_per_s = windows[0].offered_per_s
        self._batch = int(run.settings["request_batch"])
        self._rows = rows

    @property
    def base(self) -> str:
        """The variant, whatever its number of processes is."""
        return split_workers(self.name)[0]

    @property
    def clients_text(self) -> str:
        """Its number of clients in words."""
        return "1 client" if self.clients == 1 else f"{self.clients} clients"

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

    @property
    def processes_text(self) -> str:
        """The same in words."""
        return server_processes(self.processes)

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
    def _records(self) -> list[Record]:
        return [record for window in self.windows for record in window.records]

    @property
    def requests(self) -> int:
        """Requests in all repeats; 0 for a variant without requests."""
        return len(self._records)

    @property
    def images(self) -> int:
        """Images of these requests."""
        return self.requests * self._batch

    @cached_property
    def failed_images(self) -> int:
        """Images without a right answer."""
        return sum(record.failed_images for record in self._records)

    @property
    def first_errors(self) -> list[tuple[str, int]]:
        """The first few different failures, with their counts.

        Those that differ by a number alone are one: "such as" and the first of them.
        """
        kinds: dict[str, Counter[str]] = {}
        for error, count in Counter(r.error for r in self._records if r.error).items():
            kinds.setdefault(_NUMBER.sub("0", error), Counter())[error] = count
        return [
            (f"such as {next(iter(kind))}" if len(kind) > 1 else next(iter(kind)), kind.total())
            for kind in kinds.values()
        ][:_SHOWN_ERRORS]

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
        return sorted(record.lag_ms for record in self._records)

    def lag_ms(self, q: float) -> float | None:
        """Of an open loop, how late the load generator itself was; part of the latencies."""
        return None if self.offered_per_s is None else percentile(self._lags_ms, q)

    def own_lag_ms(self, q: float) -> float:
        """The same of any loop: of clients that wait, how long replies lay unread at most."""
        return percentile(self._lags_ms, q)

    @cached_property
    def _client_processes(self) -> list[tuple[Window, list[dict[str, Any]]]]:
        return [(window, window.details.get(CLIENTS, [])) for window in self.windows]

    @property
    def has_lost_worker(self) -> bool:
        """True if a client process ended before the window did."""
        return any(process["lost"] for _, told in self._client_processes for process in told)

    @property
    def has_busy_client(self) -> bool:
        """True if a client process used nearly all of a core."""
        return any(
            (process["cpu_percent"] or 0.0) >= BUSY_CLIENT_PERCENT
            for _, told in self._client_processes
            for process in told
        )

    @property
    def has_unsure_clocks(self) -> bool:
        """True if the workers' clocks may be apart by more than a hundredth of a window."""
        return any(
            clock_error_ms(told) > _CLOCK_SHARE * 1000 * window.length_s
            for window, told in self._client_processes
        )

    @property
    def is_late_generator(self) -> bool:
        """True if the load generator's own lag is more than a tenth of the TP99.

        Where nothing was answered, which may be its own fault, of the TP99 of the failures.
        """
        lag_ms, tp99_ms = self.lag_ms(0.99), self.tp_ms(0.99)
        if lag_ms is not None and tp99_ms is None:
            tp99_ms = percentile(sorted(record.latency_ms for record in self._records), 0.99)
        return lag_ms is not None and tp99_ms is not None and lag_ms > LAG_SHARE * tp99_ms

    @cached_property
    def concurrency(self) -> float | None:
        """QPS x mean latency, median of the repeats."""
        known = [
            concurrency(len(latencies), fmean(latencies), window.length_s)
            for window, latencies in zip(self.windows, self._latencies_by_window, strict=True)
            if latencies
        ]
        return median(known) if known else None

    @property
    def reference(self) -> str:
        """The variant that `ratio` compares with: the baseline, or the first row without one."""
        return BASELINE if BASELINE in self._rows else next(iter(self._rows))

    def ratio_to(self, name: str) -> Ratio | None:
        """QPS against another variant's; None for itself and where a repeat answered nothing."""
        if name == self.name or name not in self._rows:
            return None
        return self.ratio_to_row(self._rows[name])

    def ratio_to_row(self, row: Row) -> Ratio | None:
        """The same against any row of the run, such as one with another number of clients."""
        own, other = self.rates, row.rates
        pairs = [(own[repeat], other[repeat]) for repeat in sorted(own.keys() & other.keys())]
        if not pairs or min(map(min, pairs)) <= 0:
            return None
        return paired_ratio([pair[0] for pair in pairs], [pair[1] for pair in pairs])

    def ratios_to(self, name: str) -> list[float]:
        """The ratios of `ratio_to`, repeat by repeat; those repeats that both have."""
        own, other = self.rates, self._rows[name].rates
        return [own[repeat] / other[repeat] for repeat in sorted(own.keys() & other.keys())]

    @cached_property
    def ratio(self) -> Ratio | None:
        """QPS against the reference's."""
        return self.ratio_to(self.reference)

    @property
    def share_of_bound(self) -> float | None:
        """Median QPS as a share of the in-process upper bound's."""
        bound = self._rows.get(IN_PROCESS)
        return None if bound is None else self.qps.median / bound.qps.median

    @cached_property
    def _usages(self) -> list[dict[str, Any]]:
        return [
            window_usage([s.at_s for s in w.samples], [s.values for s in w.samples], w.length_s)
            for w in self.windows
        ]

    @cached_property
    def usage(self) -> dict[str, Any]:
        """The metrics over all windows."""
        return mean_usage(self._usages)

    @property
    def ran_in(self) -> str:
        """Of the upper bound: the processes that were fastest in most repeats, as text; else ""."""
        setups = [
            (int(window.details["processes"]), int(window.details["threads"]))
            for window in self.windows
            if "processes" in window.details
        ]
        if not setups:
            return ""
        (processes, threads), _ = Counter(setups).most_common(1)[0]
        plural = ("es" if processes > 1 else "", "s" if threads > 1 else "")
        return f", in {processes} process{plural[0]} of {threads} thread{plural[1]}"

    @property
    def is_noisy(self) -> bool:
        """True if processes outside of the measurement worked in at least one window."""
        return any((usage["foreign_percent"] or 0.0) > _NOISE_PERCENT for usage in self._usages)

    @property
    def is_off_littles_law(self) -> bool:
        """True if QPS x mean latency is off the number of clients by more than 5 %."""
        found = self.concurrency
        if found is None or self.offered_per_s is not None:
            return False
        return abs(found / self.clients - 1) > _LITTLE_SHARE


def clock_error_ms(processes: Sequence[Mapping[str, Any]]) -> float:
    """How far client processes' clocks may be off, by exchanges and drift; 0 for the same clock."""
    return max(
        (
            process["clock_within_ms"] + abs(process["clock_drift_ms"])
            for process in processes
            if "clock_within_ms" in process
        ),
        default=0.0,
    )


@dataclass(frozen=True)
class Mark:
    """What a reader must know before trusting a row.

    Attributes:
        name: as tables have it.
        applies: whether it is so.
        warning: what is so, in full.
        doubt: the same of rows with these `{names}`, in a few plain words.
    """

    name: str
    applies: Callable[[Row], bool]
    warning: str
    doubt: str


MARKS = (
    Mark(
        "unstable",
        lambda row: not row.qps.within(_STABLE_SHARE),
        "QPS of at least one repeat is more than 10 % off the median",
        "repeats of {names} differ by more than 10 %",
    ),
    Mark(
        "noisy",
        lambda row: row.is_noisy,
        "processes outside of the measurement used more than 10 % of a core in at least one window",
        "other programs used the machine while {names} ran",
    ),
    Mark(
        "off Little's law",
        lambda row: row.is_off_littles_law,
        "QPS x mean latency is more than 5 % off the number of clients, so time passes outside of "
        "the calls; where the client CPU is near 100 %, take more --client_processes",
        "the load generator may have held {names} back",
    ),
    Mark(
        "errors",
        lambda row: bool(row.failed_images),
        "images without a right answer, which are in no latency",
        "images to {names} got no right answer",
    ),
    Mark(
        "late generator",
        lambda row: row.is_late_generator,
        "the load generator's own lag is more than a tenth of the TP99, which contains it; take "
        "more --client_processes, or another machine for them",
        "the load generator was late itself, which the latencies of {names} contain",
    ),
    Mark(
        "lost worker",
        lambda row: row.has_lost_worker,
        "a worker of the load was lost and the window ended then: this is no result of the load "
        "that was asked for",
        "a worker that sent load to {names} was lost",
    ),
    Mark(
        "busy client",
        lambda row: row.has_busy_client,
        f"a client process used {BUSY_CLIENT_PERCENT:g} % of a core or more, so that it may be the "
        "limit; take more client processes",
        "a client process of {names} may have been the limit",
    ),
    Mark(
        "unsure clocks",
        lambda row: row.has_unsure_clocks,
        "the workers' clocks may be apart by more than a hundredth of the window, and so may its "
        "edges; take a longer --duration_s",
        "the clocks of the workers of {names} could not be compared well",
    ),
)


def tail_change(before: Row, after: Row) -> str:
    """Where the TP99 goes from one row to another: "lower", "higher", or "" for nowhere.

    Their 95 % intervals must not touch. These assume independent requests, which those of a loaded
    server are not quite, so that less than 5 % counts as nothing, too.
    """
    one_ms, other_ms = before.tp_ms(0.99), after.tp_ms(0.99)
    one, other = before.tp_interval(0.99), after.tp_interval(0.99)
    if one_ms is None or other_ms is None or one is None or other is None:
        return ""
    if abs(other_ms / one_ms - 1) < _TAIL_SHARE:
        return ""
    return "lower" if other.is_below(one) else "higher" if one.is_below(other) else ""


def summarise(run: Run, workload: WorkloadRun) -> list[Row]:
    """A row for each variant that was measured, in table order."""
    rows: dict[str, Row] = {}
    for variant in workload.variants:
        windows = [window for window in workload.windows if window.variant == variant.name]
        if windows:
            rows[variant.name] = Row(variant, windows, run, rows)
    return [*rows.values()]


def sweep_rows(run: Run, workload: WorkloadRun) -> list[Row]:
    """A row for each variant and number of clients, by ascending number within a variant."""
    rows = []
    for clients in sorted({window.clients or 0 for window in workload.windows}):
        windows = [window for window in workload.windows if window.clients == clients]
        rows += summarise(run, replace(workload, windows=windows))
    order = [variant.name for variant in workload.variants]
    return sorted(rows, key=lambda row: (order.index(row.name), row.clients))


def best_row(rows: Sequence[Row], tp99_limit_ms: float) -> Row | None:
    """The most throughput with a TP99 within the limit and every image answered right."""
    able = [
        row
        for row in rows
        if (tp99_ms := row.tp_ms(0.99)) is not None
        and tp99_ms <= tp99_limit_ms
        and not row.failed_images
    ]
    return max(able, key=lambda row: row.qps.median, default=None)
