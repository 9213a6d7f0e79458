"""From a measured run to the rows of its tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property

from loadtest.records.run import Run, VariantRun, Window, WorkloadRun
from loadtest.report.measured import MeasuredVariant
from loadtest.servers.variants import BASELINE, IN_PROCESS
from measurement.statistics import Ratio, paired_ratio

_TAIL_SHARE = 0.05


class Row(MeasuredVariant):
    """A row of a table: a variant, and how it compares with the table's others.

    What compares with another variant pairs the same repeats: of a run that was stopped the last
    repeat may pair with nothing.

    Args:
        variant: what ran.
        windows: its own, at least one.
        run: settings of the whole measurement.
        rows: all rows of the same table by name, this one among them.
    """

    def __init__(
        self, variant: VariantRun, windows: Sequence[Window], run: Run, rows: Mapping[str, Row]
    ) -> None:
        super().__init__(variant, windows, run)
        self._rows = rows

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
        pairs = self._paired_rates(row)
        if not pairs or min(map(min, pairs)) <= 0:
            return None
        return paired_ratio([pair[0] for pair in pairs], [pair[1] for pair in pairs])

    def ratios_to(self, name: str) -> list[float]:
        """The ratios of `ratio_to`, repeat by repeat; those repeats that both have."""
        return [own / other for own, other in self._paired_rates(self._rows[name])]

    def _paired_rates(self, row: Row) -> list[tuple[float, float]]:
        own, other = self.rates, row.rates
        return [(own[repeat], other[repeat]) for repeat in sorted(own.keys() & other.keys())]

    @cached_property
    def ratio(self) -> Ratio | None:
        """QPS against the reference's."""
        return self.ratio_to(self.reference)

    @property
    def share_of_bound(self) -> float | None:
        """Median QPS as a share of the in-process upper bound's."""
        bound = self._rows.get(IN_PROCESS)
        return None if bound is None else self.qps.median / bound.qps.median


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
