"""The reports of servers under load: compare, sweep, run and null_request."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from interfaces.markdown import aligned_table
from interfaces.stats import LEAVE_REASONS
from loadtest.errors import LoadTestError
from loadtest.records import raw_files
from loadtest.records.metrics import NOT_AVAILABLE, number, percent
from loadtest.records.run import Run, WorkloadRun
from loadtest.report import batch_plot, plots, stage_plot, sweep_plot, tables, waterfall_plot
from loadtest.report.batch_summary import batch_remarks, batch_table, node_batches
from loadtest.report.charts import Chart, DrawnChart, drawn
from loadtest.report.document import Page
from loadtest.report.findings import findings
from loadtest.report.generator import generator_findings, generator_table
from loadtest.report.marks import marked
from loadtest.report.row_text import clients_text, first_errors
from loadtest.report.stage_summary import by_kind, stage_parts
from loadtest.report.style import THEME
from loadtest.report.summary import Row, summarise, sweep_rows
from loadtest.report.summary_document import summary_document
from loadtest.report.sweep_findings import sweep_findings
from loadtest.report.verdict import ENOUGH_REPEATS, Decision, Verdict, verdict
from loadtest.report.waterfall import Waterfall, waterfall
from loadtest.servers.variants import may_use_gpu

# The rows of torchpipe's quick start, for reference only.
_PUBLISHED = aligned_table(
    ("Published", "QPS", "TP50 ms", "TP99 ms", "GPU", "CPU", "memory"),
    (
        ("TensorRT behind a lock", "365.94", "26.32", "54.24", "84-85 %", "231-235 %", "4.6 %"),
        ("torchpipe", "776.62", "12.69", "19.81", "90-94 %", "318-332 %", "4.1 %"),
    ),
)

# Of verdicts in the page; the others are open.
_TONES = {
    Decision.SWITCH: "good",
    Decision.SLOWER: "bad",
    Decision.WRONG_ANSWERS: "bad",
}


def _values(run: Run, folder: Path) -> Mapping[str, Any]:
    """What the templates show of every kind of load."""
    make = _sweep_chapter if run.kind == "sweep" else _chapter
    chapters = [found for w in run.workloads if (found := make(run, w, folder))]
    return {
        "verdict": [line for chapter in chapters for line in _verdict_lines(chapter)],
        "repeats": _least_repeats(run),
        "enough_repeats": ENOUGH_REPEATS,
        "cpu_us": cpu_us_per_request(run) if run.kind == "null_request" else None,
        "workloads": chapters,
        "published": _PUBLISHED,
        "files": raw_files,
        "reasons": LEAVE_REASONS,
        "theme": THEME,
        "tones": {decision.value: _TONES.get(decision, "") for decision in Decision},
    }


def _verdict_lines(chapter: Mapping[str, Any]) -> list[str]:
    """The verdict on a workload for report.md, in one paragraph."""
    told: Verdict | None = chapter["verdict"]
    if told is None:
        return [*chapter.get("sentences", ())][:1]
    name = chapter["workload"].name
    return [f"**{name}: {told.decision.title}.** {' '.join(told.sentences)}"]


def _least_repeats(run: Run) -> int | None:
    """How often the least measured row of a comparison was measured; None where none is."""
    if run.kind not in {"compare", "sweep"}:
        return None
    counts = Counter(
        (workload.name, window.variant, window.clients)
        for workload in run.workloads
        for window in workload.windows
    )
    return min(counts.values(), default=0)


def _chapter(run: Run, workload: WorkloadRun, folder: Path) -> dict[str, Any] | None:
    if not (rows := summarise(run, workload)):
        return None
    name, title = workload.name, workload.title
    stages = {stages.variant: stage_parts(stages) for stages in workload.stages}
    told = {variant: by_kind(found) for variant, found in stages.items() if found}
    nodes = node_batches(rows)
    several = [node for node in nodes if max(node.by_size) > 1]
    steps = found_waterfall(run, workload, rows)

    def draw(chart: Chart | None) -> DrawnChart | None:
        return None if chart is None else drawn(folder, chart)

    return {
        "workload": workload,
        "rows": rows,
        "verdict": found_verdict(run, workload, rows) if run.kind == "compare" else None,
        "findings": findings(rows, workload.parts),
        "waterfall": steps,
        "waterfall_table": tables.waterfall_table(steps.steps) if steps else None,
        "waterfall_chart": draw(waterfall_plot.chart(name, title, steps) if steps else None),
        "first_charts": [drawn(folder, chart) for chart in plots.first_charts(workload, rows)],
        "distribution": draw(plots.distribution_chart(workload, rows)),
        "utilisation": draw(plots.utilisation_chart(workload, rows)),
        "quick": tables.short_tables(rows, _memory_bytes(run)),
        "qps": tables.qps_table(rows),
        "latency": tables.latency_table(rows),
        "usage": tables.usage_table(rows, _memory_bytes(run)),
        "parts": tables.parts_table(workload.parts) if workload.parts else None,
        "stages": tables.stages_table(stages) if stages else None,
        "stage_chart": draw(stage_plot.chart(name, title, told) if told else None),
        "batches": batch_table(nodes) if nodes else None,
        "batch_chart": draw(batch_plot.chart(name, title, several) if several else None),
        "batch_nodes": nodes,
        "batch_remarks": [*batch_remarks(rows, nodes)],
        "warnings": _warnings(rows),
        "errors": _errors(rows),
        "generator": generator_findings(rows),
        "generator_table": generator_table(rows),
    }


def _warnings(rows: Sequence[Row]) -> list[tuple[str, str, str]]:
    """Of each mark that a row has: its name, the rows, and what it means."""
    return [
        (mark.name, ", ".join(map(_named, found)), mark.warning) for mark, found in marked(rows)
    ]


def _errors(rows: Sequence[Row]) -> list[tuple[str, int, str]]:
    """The first failures: the row, how many, and what was told."""
    return [(row.name, count, error) for row in rows for error, count in first_errors(row)]


def _named(row: Row) -> str:
    """A row's variant and, in a sweep, its number of clients."""
    return row.name if row.windows[0].clients is None else f"{row.name} with {clients_text(row)}"


def found_waterfall(run: Run, workload: WorkloadRun, rows: Sequence[Row]) -> Waterfall | None:
    """The waterfall of a workload, where there is one."""
    return waterfall(rows, on_gpu=_on_gpu(run, workload))


def found_verdict(run: Run, workload: WorkloadRun, rows: Sequence[Row]) -> Verdict:
    """The verdict on a workload of a comparison."""
    steps = found_waterfall(run, workload, rows)
    return verdict(run, workload, rows, steps, on_gpu=_on_gpu(run, workload))


def _on_gpu(run: Run, workload: WorkloadRun) -> bool:
    return may_use_gpu(workload.engine, has_gpu=run.machine["gpus"] != NOT_AVAILABLE)


def _sweep_chapter(run: Run, workload: WorkloadRun, folder: Path) -> dict[str, Any] | None:
    if not (rows := sweep_rows(run, workload)):
        return None
    limit_ms = float(run.settings["tp99_limit_ms"])
    charts = [
        sweep_plot.chart(workload.name, workload.title, rows, limit_ms),
        sweep_plot.rate_chart(workload.name, workload.title, rows),
    ]
    return {
        "workload": workload,
        "rows": rows,
        "verdict": None,
        "waterfall": None,
        "sentences": sweep_findings(rows, limit_ms),
        "sweep": tables.sweep_table(rows),
        "charts": [drawn(folder, chart) for chart in charts],
        "warnings": _warnings(rows),
        "errors": _errors(rows),
    }


def _memory_bytes(run: Run) -> int:
    return int(run.machine["memory_bytes"])


def _terminal(run: Run) -> str:
    """The tables of every workload; the verdict of all comes last, where it is seen."""
    parts: list[str] = []
    verdicts: list[str] = []
    for workload in run.workloads:
        if run.kind == "sweep":
            if rows := sweep_rows(run, workload):
                first, *further = sweep_findings(rows, float(run.settings["tp99_limit_ms"]))
                parts += [tables.sweep_table(rows), *(f"- {told}" for told in further), ""]
                verdicts.append(first)
        elif rows := summarise(run, workload):
            found = found_waterfall(run, workload, rows)
            parts += [
                f"{workload.name} ({workload.engine} {workload.precision}), "
                f"{rows[0].clients} clients\n",
                *([tables.waterfall_table(found.steps)] if found else []),
                tables.qps_table(rows),
                tables.latency_table(rows),
                tables.usage_table(rows, _memory_bytes(run)),
                *findings(rows, workload.parts),
                "",
            ]
            if run.kind == "compare":
                told = found_verdict(run, workload, rows)
                verdicts += [f"{workload.name}: {told.decision.title}", *told.sentences, ""]
    return "\n".join([*parts, *verdicts])


def quick_tables(run: Run) -> str:
    """The quick start's tables of a run with one server, its counts and its first errors."""
    rows = summarise(run, run.workloads[0])
    lines: list[str] = [*tables.short_tables(rows, _memory_bytes(run))]
    for row in rows:
        lines += _counts(row)
    if len(rows) > 1 or run.settings.get("workers"):
        lines += [str(generator_table(rows)), *(f"- {told}" for told in generator_findings(rows))]
    return "\n".join(lines)


def _counts(row: Row) -> list[str]:
    """What a row's tables leave out."""
    length_s = sum(window.length_s for window in row.windows)
    return [
        f"{row.requests} requests in {length_s:.2f} s, {row.failed_images} images "
        f"failed; {_in_flight(row)}; "
        f"client CPU {percent(row.usage['clients_cpu_percent'], 1)}, "
        f"foreign CPU {percent(row.usage['foreign_percent'], 1)}; marks: {tables.marks(row)}",
        *(f"error ({count} times): {error}" for error, count in first_errors(row)),
    ]


def _in_flight(row: Row) -> str:
    """How many requests were on their way, and how late an open loop's were sent."""
    found = f"QPS x mean latency = {number(row.concurrency, 2)}"
    if row.offered_per_s is None:
        return f"{found} for {clients_text(row)}"
    return (
        f"{found} in flight at {row.offered_per_s:g} requests/s; latencies count from the planned "
        f"times, and the load generator's own lag in them is {number(row.lag_ms(0.50), 2)} ms "
        f"(TP50), {number(row.lag_ms(0.99), 2)} ms (TP99)"
    )


def cpu_us_per_request(run: Run) -> float:
    """Server CPU time (user and system) per request of one window, in microseconds.

    Raises:
        LoadTestError: the server's process could not be sampled.
    """
    row: Row = summarise(run, run.workloads[0])[0]
    percents = row.usage["server_cpu_percent"]
    if percents is None:
        raise LoadTestError("the server's CPU time could not be sampled")
    return float(percents / 100 * row.windows[0].length_s / row.requests * 1e6)


PAGES = {
    kind: Page(title, "load.md", _values, _terminal, html="load.html", summary=summary_document)
    for kind, title in (
        ("compare", "Comparison of the handlers"),
        ("sweep", "Throughput and latency over the number of clients"),
        ("run", "Load on a running server"),
    )
}
PAGES["null_request"] = Page("Server CPU time per null request", "load.md", _values, _terminal)
