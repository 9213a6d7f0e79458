"""The tables of the report, in Markdown that is also readable on a terminal.

A table is a list of columns, each a heading and a function that makes its cell of a row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from interfaces.markdown import Table, aligned_table
from loadtest.records.metrics import METRICS, NOT_AVAILABLE, number, percent, percents
from loadtest.records.run import Check, PartRun
from loadtest.report.marks import is_off_littles_law, marks_of
from loadtest.report.stage_summary import StagePart
from loadtest.report.summary import Row
from loadtest.report.waterfall import Step
from measurement.statistics import Interval, Ratio, Spread

_T = TypeVar("_T")
Columns = Sequence[tuple[str, Callable[[_T], str]]]


def table(columns: Columns[_T], rows: Sequence[_T]) -> Table:
    """The table of these rows."""
    return aligned_table(
        [heading for heading, _ in columns], [[cell(row) for _, cell in columns] for row in rows]
    )


def bracket(spread: Spread | None, digits: int = 1) -> str:
    """The extremes of a spread."""
    if spread is None:
        return NOT_AVAILABLE
    return spread.range_text(digits)


def over_repeats(spread: Spread | None, digits: int = 2) -> str:
    """Median and extremes."""
    if spread is None:
        return NOT_AVAILABLE
    return f"{spread.median:.{digits}f} {bracket(spread, digits)}"


def interval(value: Interval | None, digits: int = 1) -> str:
    """An interval, or "n/a" where the data reaches neither bound."""
    if value is None or (value.low is None and value.high is None):
        return NOT_AVAILABLE
    return value.text(digits)


def factor_interval(value: Interval | None) -> str:
    """That of a factor, in as many digits as it takes to see on which side of 1 it lies."""
    digits = 2
    if value is not None and value.low is not None and value.high is not None:
        while value.excludes(1) and round(value.low, digits) <= 1 <= round(value.high, digits):
            digits += 1
    return interval(value, digits)


def factor(ratio: Ratio) -> str:
    """A ratio with its interval, where the data reaches one."""
    bounds = "" if ratio.interval.low is None else f" {factor_interval(ratio.interval)}"
    return f"x {ratio.spread.median:.2f}{bounds}"


def marks(row: Row) -> str:
    """What a reader must know before trusting the row."""
    return ", ".join(marks_of(row)) or "-"


_CHECKS: Columns[Check] = (
    ("Asked", lambda check: check.name),
    ("bound", lambda check: check.bound),
    ("measured", lambda check: check.measured),
    ("verdict", lambda check: {True: "PASS", False: "**FAIL**", None: NOT_AVAILABLE}[check.met]),
)


def check_table(checks: Sequence[Check]) -> Table:
    """A row a requirement, with its verdict."""
    return table(_CHECKS, checks)


_NAME = ("Variant", lambda row: row.name)
_QPS = ("QPS", lambda row: number(row.qps.median))
_QPS_RANGE = ("[min, max]", lambda row: bracket(row.qps))
_TP50 = ("TP50 ms", lambda row: number(row.tp_ms(0.50), 2))
_TP99 = ("TP99 ms", lambda row: number(row.tp_ms(0.99), 2))
_TP99_INTERVAL = ("95 % interval", lambda row: interval(row.tp_interval(0.99), 2))
_MARKS = ("marks", marks)


def _of_ratio(show: Callable[[Ratio], str]) -> Callable[[Row], str]:
    return lambda row: NOT_AVAILABLE if row.ratio is None else show(row.ratio)


def qps_table(rows: Sequence[Row]) -> Table:
    """Throughput, its ratio to the reference, and what bounds it."""
    columns: Columns[Row] = (
        _NAME,
        _QPS,
        _QPS_RANGE,
        (f"x {rows[0].reference}", _of_ratio(lambda ratio: number(ratio.spread.median, 2))),
        ("[min, max]", _of_ratio(lambda ratio: bracket(ratio.spread, 2))),
        ("95 % interval", _of_ratio(lambda ratio: factor_interval(ratio.interval))),
        (
            "share of in-process",
            lambda row: percent(None if (s := row.share_of_bound) is None else 100 * s),
        ),
        (
            "requests",
            lambda row: (
                str(row.requests) if row.latencies_ms or row.failed_images else NOT_AVAILABLE
            ),
        ),
        ("errors", lambda row: str(row.failed_images) if row.requests else NOT_AVAILABLE),
        _MARKS,
    )
    return table(columns, rows)


_OPEN_LOOP: Columns[Row] = (
    ("QPS x mean (in flight)", lambda row: number(row.concurrency, 2)),
    ("generator's lag: TP50 ms", lambda row: number(row.lag_ms(0.50), 2)),
    ("generator's lag: TP99 ms", lambda row: number(row.lag_ms(0.99), 2)),
)


def _closed_loop(clients: int) -> Columns[Row]:
    def concurrency(row: Row) -> str:
        return number(row.concurrency, 2) + (" !" if is_off_littles_law(row) else "")

    return ((f"QPS x mean (clients: {clients})", concurrency),)


def latency_table(rows: Sequence[Row]) -> Table:
    """TP50 and TP99 in ms, pooled with intervals and over the repeats, and Little's law."""
    columns: Columns[Row] = (
        _NAME,
        _TP50,
        ("95 % interval", lambda row: interval(row.tp_interval(0.50), 2)),
        ("repeats: median [min, max]", lambda row: over_repeats(row.tp_spread(0.50))),
        _TP99,
        _TP99_INTERVAL,
        ("repeats: median [min, max]", lambda row: over_repeats(row.tp_spread(0.99))),
        ("n", lambda row: str(len(row.latencies_ms))),
        *(_OPEN_LOOP if rows[0].offered_per_s is not None else _closed_loop(rows[0].clients)),
    )
    return table(columns, [row for row in rows if row.requests])


def waterfall_table(steps: Sequence[Step]) -> Table:
    """A row a change: its factor, whether that is beyond chance, and its share of the gain."""

    def of_ratio(show: Callable[[Ratio], str]) -> Callable[[Step], str]:
        return lambda step: NOT_AVAILABLE if step.ratio is None else show(step.ratio)

    columns: Columns[Step] = (
        ("Change", lambda step: step.label if step.changes else "-"),
        ("variant", lambda step: step.row.name),
        ("processes", lambda step: str(step.row.processes)),
        _of_row(_QPS),
        ("x row above", of_ratio(lambda ratio: number(ratio.spread.median, 2))),
        ("95 % interval", of_ratio(lambda ratio: factor_interval(ratio.interval))),
        ("beyond chance", of_ratio(lambda ratio: "yes" if ratio.is_distinct else "no")),
        (
            "share of the gain",
            lambda step: percent(None if step.share is None else 100 * step.share),
        ),
    )
    return table(columns, steps)


def _of_row(column: tuple[str, Callable[[Row], str]]) -> tuple[str, Callable[[Step], str]]:
    heading, cell = column
    return heading, lambda step: cell(step.row)


def usage_columns(memory_bytes: int) -> dict[str, Callable[[Row], str]]:
    """Heading to cell of every metric that tables show."""

    def cell(usage: str, show: Callable[[object, int], str], of_server: bool) -> Callable[..., str]:
        # Without a server the samples cover loading as well, so they say nothing of what ran.
        return lambda row: (
            NOT_AVAILABLE
            if row.usage[usage] is None or (of_server and row.variant.server is None)
            else show(row.usage[usage], memory_bytes)
        )

    return {
        heading: cell(metric.usage, show, metric.of_server)
        for metric in METRICS
        for heading, show in metric.columns.items()
    }


def usage_table(rows: Sequence[Row], memory_bytes: int) -> Table:
    """GPU, CPU and memory of the server; CPU of the clients and of everything else."""
    return table((_NAME, *usage_columns(memory_bytes).items()), rows)


def sweep_table(rows: Sequence[Row]) -> Table:
    """Throughput, latency and utilisation of every variant and number of clients."""
    columns: Columns[Row] = (
        _NAME,
        ("clients", lambda row: str(row.clients)),
        _QPS,
        _QPS_RANGE,
        _TP50,
        _TP99,
        _TP99_INTERVAL,
        ("client CPU", lambda row: percent(row.usage["clients_cpu_percent"])),
        ("in processes", lambda row: str(row.client_processes)),
        ("server CPU", lambda row: percent(row.usage["server_cpu_percent"])),
        ("GPU", lambda row: percents(row.usage["gpu_percents"])),
        ("requests", lambda row: str(row.requests)),
        ("errors", lambda row: str(row.failed_images)),
        _MARKS,
    )
    return table(columns, rows)


def parts_table(parts: Sequence[PartRun]) -> Table:
    """Images per second of every part alone, by batch size."""

    def rate(size: int) -> Callable[[PartRun], str]:
        return lambda part: number(part.images_per_s.get(str(size)), 0)

    columns: Columns[PartRun] = (
        ("Part", lambda part: part.name),
        ("threads", lambda part: str(part.threads) if part.images_per_s else NOT_AVAILABLE),
        *(
            (f"batch {size}", rate(size))
            for size in sorted({int(size) for part in parts for size in part.images_per_s})
        ),
    )
    return table(columns, parts)


def stages_table(variants: Mapping[str, Sequence[StagePart]]) -> Table:
    """Median, mean and share of every part of a request's time."""
    header = ("Variant", "stage", "kind", "median ms", "mean ms", "share")
    rows: list[tuple[str, ...]] = []
    for name, parts in variants.items():
        rows += [
            (
                name,
                part.name,
                part.kind,
                number(part.median_ms, 2),
                number(part.mean_ms, 2),
                percent(100 * part.share, 1),
            )
            for part in parts
        ] or [(name, *[NOT_AVAILABLE] * 5)]
    return aligned_table(header, rows)


def short_tables(rows: Sequence[Row], memory_bytes: int) -> list[Table]:
    """The quick start's three tables: throughput, response time, utilisation."""
    usage = usage_columns(memory_bytes)
    name = ("Method", lambda row: row.name)
    groups: tuple[Columns[Row], ...] = (
        (name, ("QPS", lambda row: number(row.qps.median, 2))),
        (name, _TP50, _TP99),
        (name, *((heading, usage[heading]) for heading in ("GPU", "CPU", "memory"))),
    )
    return [table(columns, rows) for columns in groups]
