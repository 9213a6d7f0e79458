"""The report of `peers`: this service beside others, and where each of those is better."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from loadtest.records import raw_files
from loadtest.records.metrics import NOT_AVAILABLE, number, percent
from loadtest.records.run import TRIAL, Check, Record, Run, Window, WorkloadRun
from loadtest.report import sweep_plot, tables
from loadtest.report.document import Page
from loadtest.report.summary import Row, summarise, sweep_rows
from loadtest.servers.variants import CONTROL, PIPELINE, PIPELINE_AUTO, VARIANTS
from measurement.statistics import Spread, percentile

_REFUSALS = ("RefusedError", "Overloaded")
_CLIENTS = 10
"""Of which more is asked than of other numbers of clients."""


def _only(workload: WorkloadRun, keep: Callable[[Window], bool]) -> WorkloadRun:
    return replace(workload, windows=[window for window in workload.windows if keep(window)])


def _closed(run: Run, workload: WorkloadRun) -> list[Row]:
    """A row for each variant that was kept and number of clients."""
    return sweep_rows(run, _only(workload, lambda w: w.clients is not None and w.repeat != TRIAL))


def _is_peer(row: Row) -> bool:
    return row.name not in VARIANTS and row.name.rpartition("-")[0] not in VARIANTS


def _own_name(rows: Sequence[Row]) -> str:
    """The pipeline that is judged: with as many processes as it has by default, if measured."""
    names = {row.name for row in rows}
    return PIPELINE_AUTO if PIPELINE_AUTO in names else PIPELINE


def _pairs(rows: Sequence[Row]) -> Iterator[tuple[Row, Row]]:
    """Each row with the pipeline's for as many clients."""
    name = _own_name(rows)
    own = {row.clients: row for row in rows if row.name == name}
    for row in rows:
        if row.name != name and row.clients in own:
            yield row, own[row.clients]


def _better(row: Row, own: Row) -> list[str]:
    """In what a row beats the pipeline's beyond chance."""
    found = []
    ratio = row.ratio_to(own.name)
    if ratio is not None and ratio.is_distinct and ratio.spread.median > 1:
        found.append(f"QPS {ratio.spread.median:.2f} x")
    theirs, ours = row.tp_interval(0.99), own.tp_interval(0.99)
    if (
        theirs is not None
        and ours is not None
        and theirs.high is not None
        and ours.low is not None
        and theirs.high < ours.low
    ):
        found.append(f"TP99 {_tp99_ratio(row, own)} x")
    return found


def _tp99_ratio(row: Row, own: Row) -> str:
    theirs, ours = row.tp_ms(0.99), own.tp_ms(0.99)
    return NOT_AVAILABLE if theirs is None or not ours else f"{theirs / ours:.2f}"


def _sentences(rows: Sequence[Row]) -> list[str]:
    """Where each peer is better than the pipeline, and which are nowhere."""
    name = _own_name(rows)
    better: dict[str, list[str]] = {}
    for row, own in _pairs(rows):
        if _is_peer(row):
            told = better.setdefault(row.name, [])
            if found := _better(row, own):
                clients = "1 client" if row.clients == 1 else f"{row.clients} clients"
                told.append(f"{clients} ({', '.join(found)})")
    sentences = [
        f"`{peer}` is better than `{name}` with {'; '.join(told)}."
        for peer, told in better.items()
        if told
    ]
    if nowhere := [f"`{peer}`" for peer, told in better.items() if not told]:
        sentences.append(f"Nowhere better beyond chance: {', '.join(nowhere)}.")
    return sentences or [f"No peer was measured beside `{name}`."]


def _checks(rows: Sequence[Row]) -> list[Check]:
    """What is asked of the pipeline beside the best peer and the lock-free control."""
    name = _own_name(rows)
    checks = []
    for clients in sorted({row.clients for row in rows}):
        at = {row.name: row for row in rows if row.clients == clients}
        own = at.get(name)
        peers = [row for row in at.values() if _is_peer(row)]
        if own is None or not peers:
            continue
        best = max(peers, key=lambda row: row.qps.median)
        least = 1.03 if clients == _CLIENTS else 0.98
        who = f"{clients} clients: {name} beside {best.name}, the best peer"
        checks.append(_qps_check(own, best, f"{who}: QPS", least))
        if clients == _CLIENTS:
            checks.append(_tp99_check(own, best, f"{who}: TP99", 1.0))
            if (control := at.get(CONTROL)) is not None:
                who = f"{clients} clients: {name} beside {CONTROL}"
                checks.append(_qps_check(own, control, f"{who}: QPS", 1.05))
                checks.append(_tp99_check(own, control, f"{who}: TP99", 0.75))
    return checks


def _qps_check(own: Row, other: Row, name: str, least: float) -> Check:
    ratio = own.ratio_to(other.name)
    measured = None if ratio is None else ratio.spread.median
    met = None if measured is None else measured >= least
    return Check(name, f">= {least:g} x", f"{number(measured, 3)} x", met)


def _tp99_check(own: Row, other: Row, name: str, most: float) -> Check:
    ours, theirs = own.tp_ms(0.99), other.tp_ms(0.99)
    measured = None if ours is None or not theirs else ours / theirs
    met = None if measured is None else measured <= most
    return Check(name, f"<= {most:g} x", f"{number(measured, 3)} x", met)


def _beside(rows: Sequence[Row]) -> str:
    name = _own_name(rows)

    def ratio(row: Row, show: Callable[[Any], str]) -> str:
        found = row.ratio_to(name)
        return NOT_AVAILABLE if found is None else show(found)

    columns: tables.Columns[tuple[Row, Row]] = (
        ("Variant", lambda pair: pair[0].name),
        ("clients", lambda pair: str(pair[0].clients)),
        (f"QPS x {name}", lambda pair: ratio(pair[0], lambda r: number(r.spread.median, 2))),
        (
            "95 % interval",
            lambda pair: ratio(pair[0], lambda r: tables.factor_interval(r.interval)),
        ),
        (f"TP99 x {name}", lambda pair: _tp99_ratio(*pair)),
        ("better in", lambda pair: ", ".join(_better(*pair)) or "-"),
    )
    return tables.table(columns, [*_pairs(rows)])


def _trials(run: Run, workload: WorkloadRun) -> str:
    """Throughput and TP99 of every setting that had a choice."""
    kept = {entry["variant"] for entry in run.results["kept"] if entry["workload"] == workload.name}
    columns: tables.Columns[Row] = (
        ("Setting", lambda row: row.name),
        ("QPS", lambda row: number(row.qps.median)),
        ("TP99 ms", lambda row: number(row.tp_ms(0.99), 2)),
        ("errors", lambda row: str(row.failed_images)),
        ("kept", lambda row: "yes" if row.name in kept else "-"),
    )
    rows = summarise(run, _only(workload, lambda window: window.repeat == TRIAL))
    return tables.table(columns, rows) if rows else ""


def _overload(run: Run, workload: WorkloadRun) -> str:
    """Goodput and what became of the rest, under more load than each can serve."""
    deadline_ms = float(run.settings["deadline_ms"])

    def spread(row: Row, count: Callable[[Record], bool], unit: str = "s") -> Spread:
        return Spread.of(
            [
                sum(map(count, w.records)) / (w.length_s if unit == "s" else len(w.records))
                for w in row.windows
            ]
        )

    def is_good(record: Record) -> bool:
        return not record.failed_images and record.latency_ms <= deadline_ms

    def is_refused(record: Record) -> bool:
        return record.error.startswith(_REFUSALS)

    def share(count: Callable[[Record], bool]) -> Callable[[Row], str]:
        return lambda row: percent(100 * spread(row, count, "").median, 1)

    columns: tables.Columns[Row] = (
        ("Variant", lambda row: row.name),
        ("offered /s", lambda row: number(row.windows[0].offered_per_s)),
        ("goodput /s", lambda row: tables.over_repeats(spread(row, is_good), 1)),
        ("TP50 ms", lambda row: number(_percentile(row, 0.50), 1)),
        ("TP99 ms", lambda row: number(_percentile(row, 0.99), 1)),
        ("right", share(lambda record: not record.failed_images)),
        ("refused", share(is_refused)),
        ("lost or late", share(lambda r: bool(r.failed_images) and not is_refused(r))),
        ("client CPU", lambda row: percent(row.usage["clients_cpu_percent"])),
        ("server CPU", lambda row: percent(row.usage["server_cpu_percent"])),
    )
    rows = summarise(run, _only(workload, lambda window: window.offered_per_s is not None))
    return tables.table(columns, rows) if rows else ""


def _percentile(row: Row, q: float) -> float | None:
    return percentile(row.latencies_ms, q) if row.latencies_ms else None


def _chapter(run: Run, workload: WorkloadRun, folder: Path) -> dict[str, Any]:
    rows = _closed(run, workload)
    checks = _checks(rows)
    absent = [
        (entry["variant"], entry[what])
        for key, what in (("failures", "reason"), ("notes", "note"))
        for entry in run.results[key]
        if entry["workload"] == workload.name
    ]
    return {
        "workload": workload,
        "better": _sentences(rows),
        "checks": tables.check_table(checks) if checks else "",
        "beside": _beside(rows),
        "sweep": tables.sweep_table(rows),
        "pictures": [sweep_plot.draw(folder, workload.name, workload.title, rows, None)]
        if rows
        else [],
        "overload": _overload(run, workload),
        "trials": _trials(run, workload),
        "absent": absent,
    }


def _values(run: Run, folder: Path) -> Mapping[str, Any]:
    counts = Counter(
        (workload.name, window.variant, window.clients)
        for workload in run.workloads
        for window in workload.windows
        if window.repeat != TRIAL
    )
    return {
        "repeats": min(counts.values(), default=0),
        "chapters": [_chapter(run, workload, folder) for workload in run.workloads],
        "files": raw_files,
    }


def _terminal(run: Run) -> str:
    """Of every workload: all numbers, and where peers are better."""
    parts = []
    for workload in run.workloads:
        rows = _closed(run, workload)
        parts += [workload.title, "", tables.sweep_table(rows), *_sentences(rows)]
        parts += [_overload(run, workload), _trials(run, workload)]
    parts += [
        f"{entry['workload']} {entry['variant']}: {entry['reason']}"
        for entry in run.results["failures"]
    ]
    return "\n".join(parts)


PAGES = {"peers": Page("This service beside its peers", "peers.md", _values, _terminal)}
