"""Whether the clients of a run were its limit: a row a client process, and what follows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Any

from interfaces.markdown import Table
from loadtest.records.metrics import number, percent
from loadtest.records.run import CLIENTS, Record
from loadtest.report.marks import (
    BUSY_CLIENT_PERCENT,
    LAG_SHARE,
    clock_error_ms,
    has_busy_client,
)
from loadtest.report.summary import Row, tail_change
from loadtest.report.tables import Columns, factor_interval, table
from measurement.statistics import Ratio, percentile

_SAME_SHARE = 0.05


class _Process:
    """A client process over the windows of a row."""

    def __init__(self, row: Row, worker: int) -> None:
        self.row = row
        self.told = [
            process
            for window in row.windows
            for process in window.details[CLIENTS]
            if process["worker"] == worker
        ]
        self.worker = worker
        self.records = [r for w in row.windows for r in w.records if r.worker == str(worker)]
        self._length_s = sum(window.length_s for window in row.windows)

    @property
    def host(self) -> int:
        return int(self.told[0]["host"])

    @property
    def clients(self) -> int:
        return int(self.told[0]["clients"])

    @property
    def cpu_percent(self) -> float | None:
        known = [process["cpu_percent"] for process in self.told]
        return None if None in known else fmean(known)

    @property
    def requests_per_s(self) -> float:
        return len(self.records) / self._length_s

    @property
    def error(self) -> str:
        return next((process["lost"] for process in self.told if process["lost"]), "")

    def latency_ms(self, q: float) -> float | None:
        answered = sorted(r.latency_ms for r in self.records if not r.failed_images)
        return percentile(answered, q) if answered else None

    def lag_ms(self, q: float) -> float | None:
        return percentile(_lags_ms(self.records), q) if self.records else None

    @property
    def has_clock(self) -> bool:
        return "clock_offset_ms" in self.told[0]

    def clock(self) -> str:
        """Of a worker of Locust's distributed mode: its clock beside the master's."""
        one = self.told[0]
        return f"{one['clock_offset_ms']:+.2f} ± {clock_error_ms([one]):.2f}"


def _lags_ms(records: Sequence[Record]) -> list[float]:
    return sorted(record.lag_ms for record in records)


def processes(row: Row) -> list[_Process]:
    """The client processes of a row, by number; empty where they were not told of."""
    told: list[dict[str, Any]] = row.windows[0].details.get(CLIENTS, [])
    return [_Process(row, process["worker"]) for process in sorted(told, key=_number)]


def _number(process: dict[str, Any]) -> int:
    return int(process["worker"])


def generator_table(rows: Sequence[Row]) -> Table | None:
    """Each client process of each row; None where they were not told of."""
    found = [process for row in rows for process in processes(row)]
    columns: Columns[_Process] = (
        ("Clients of", lambda one: one.row.name),
        ("process", lambda one: str(one.worker)),
        ("host", lambda one: str(one.host)),
        ("clients", lambda one: str(one.clients)),
        ("requests/s", lambda one: number(one.requests_per_s, 1)),
        ("TP50 ms", lambda one: number(one.latency_ms(0.50), 2)),
        ("TP99 ms", lambda one: number(one.latency_ms(0.99), 2)),
        ("own lag: TP99 ms", lambda one: number(one.lag_ms(0.99), 2)),
        ("CPU of a core", lambda one: percent(one.cpu_percent)),
        *((("clock ms", _Process.clock),) if any(one.has_clock for one in found) else ()),
    )
    return table(columns, found) if found else None


def generator_findings(rows: Sequence[Row]) -> list[str]:
    """Whether the clients were the limit, and what shows it; the answer comes first."""
    if not rows or not processes(rows[0]):
        return []
    if lost := [*_lost(rows)]:
        return lost
    return [_answer(rows), *_cpu(rows), *_lag(rows), *_clocks(rows)]


def _lost(rows: Sequence[Row]) -> Iterator[str]:
    for row in rows:
        for one in processes(row):
            if one.error:
                yield (
                    f"**Invalid**: worker {one.worker} {one.error}. The window ended then, after "
                    f"{row.windows[-1].length_s:.1f} s; its requests are in no number here."
                )


def _answer(rows: Sequence[Row]) -> str:
    if len(rows) == 2 and (ratio := rows[1].ratio_to_row(rows[0])) is not None:
        return _of_pairs(rows[0], rows[1], ratio)
    signs = [row for row in rows if has_busy_client(row) or is_lagging(row)]
    if signs:
        return (
            "**The clients may have been the limit**, as the next lines say. `--doubling_pairs 5` "
            "shows whether twice as many client processes get more."
        )
    return (
        "**Nothing hints at the clients as the limit**. `--doubling_pairs 5` would show it: the "
        "same load from twice as many client processes, in turns."
    )


def _of_pairs(few: Row, many: Row, ratio: Ratio) -> str:
    """What twice as many processes changed."""
    served = (
        f"{many.client_processes} client processes were served {ratio.spread.median:.3f} times the "
        f"images per second of {few.client_processes} (median of {ratio.pairs} paired windows; "
        f"95 % interval {factor_interval(ratio.interval)})"
    )
    change = tail_change(few, many)
    tail = (
        f"TP99 {number(few.tp_ms(0.99), 2)} ms and {number(many.tp_ms(0.99), 2)} ms, "
        f"{change or 'no different beyond chance'}"
    )
    if few.offered_per_s is not None:
        if change == "lower":
            return (
                f"**The clients were a limit**: of the same rate, {tail} with twice as many client "
                f"processes, so that the load generator was part of the latency. {served}."
            )
        return f"**The clients were not the limit**: of the same rate, {tail}. {served}."
    low, high = ratio.interval.low, ratio.interval.high
    if low is None or high is None:
        return f"**Nothing is proven**: {served}; one pair shows no spread. {tail}."
    if low > 1:
        return f"**The clients were the limit**: {served}. Take more of them. {tail}."
    if high <= 1 + _SAME_SHARE:
        fewer = " They share cores with it and take some from it." if high < 1 else ""
        return (
            f"**The server is the limit, and not the clients**: {served}, which is no gain beyond "
            f"{100 * _SAME_SHARE:g} %.{fewer} {tail}."
        )
    return (
        f"**Nothing is proven**: {served}, so that a gain of more than {100 * _SAME_SHARE:g} % is "
        f"not ruled out; take more --doubling_pairs, or a longer --duration_s. {tail}."
    )


def _cpu(rows: Sequence[Row]) -> Iterator[str]:
    known = [
        (one.cpu_percent, one)
        for row in rows
        for one in processes(row)
        if one.cpu_percent is not None
    ]
    if known:
        most, one = max(known, key=lambda pair: pair[0])
        told = (
            "so that it was near its limit: take more client processes"
            if most >= BUSY_CLIENT_PERCENT
            else f"where {BUSY_CLIENT_PERCENT:g} % would be near its limit"
        )
        yield (
            f"The busiest client process ({one.worker} of {one.row.client_processes}) used "
            f"{most:.0f} % of a core, {told}."
        )


def is_lagging(row: Row) -> bool:
    """True if the client processes' own lag is more than a tenth of the TP99."""
    tp99_ms = row.tp_ms(0.99)
    return tp99_ms is not None and row.own_lag_ms(0.99) > LAG_SHARE * tp99_ms


def _lag(rows: Sequence[Row]) -> Iterator[str]:
    for row in rows:
        tp99_ms = row.tp_ms(0.99)
        if tp99_ms is None:
            continue
        planned = "requests sent later than planned, and " if row.offered_per_s is not None else ""
        told = " That is more than a tenth." if is_lagging(row) else ""
        worst = max(processes(row), key=lambda one: one.lag_ms(0.99) or 0.0)
        if row.client_processes > 1:
            told += f" The latest is process {worst.worker}, by {number(worst.lag_ms(0.99), 2)} ms."
        yield (
            f"The clients' own lag is {row.own_lag_ms(0.50):.2f} ms (TP50) and "
            f"{row.own_lag_ms(0.99):.2f} ms (TP99) of the latencies of `{row.name}`, whose TP99 is "
            f"{tp99_ms:.2f} ms: {planned}replies that may have lain unread while the process was "
            f"busy with others.{told}"
        )


def _clocks(rows: Sequence[Row]) -> Iterator[str]:
    told = [
        process
        for row in rows
        for window in row.windows
        for process in window.details[CLIENTS]
        if "clock_offset_ms" in process
    ]
    if told:
        yield (
            f"The workers' clocks beside the master's are known to {clock_error_ms(told):.2f} ms, "
            "from the shortest of 20 exchanges before the load and 20 after it. By so much the "
            "edges of the window may differ between them; latencies are each worker's own, and "
            "differ by nothing."
        )
