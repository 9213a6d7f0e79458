"""The reports of servers under load: compare, sweep, run and null_request."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from loadtest.errors import LoadTestError
from loadtest.records import raw_files
from loadtest.records.metrics import NOT_AVAILABLE, number, percent
from loadtest.records.run import Run, WorkloadRun
from loadtest.report import plots, stage_plot, sweep_plot, tables, waterfall_plot
from loadtest.report.document import Page
from loadtest.report.findings import findings
from loadtest.report.stage_summary import by_kind, stage_parts
from loadtest.report.summary import Row, best_row, summarise, sweep_rows
from loadtest.report.waterfall import Waterfall, waterfall
from loadtest.servers.variants import may_use_gpu

# The rows of torchpipe's quick start, for reference only.
_PUBLISHED = tables.markdown(
    ("Published", "QPS", "TP50 ms", "TP99 ms", "GPU", "CPU", "memory"),
    (
        ("TensorRT behind a lock", "365.94", "26.32", "54.24", "84-85 %", "231-235 %", "4.6 %"),
        ("torchpipe", "776.62", "12.69", "19.81", "90-94 %", "318-332 %", "4.1 %"),
    ),
)


def _values(run: Run, folder: Path) -> Mapping[str, Any]:
    """What the template shows of every kind of load."""
    chapters = _sweep_chapter if run.kind == "sweep" else _chapter
    return {
        "mean_kb": sum(image["size_bytes"] for image in run.images) / len(run.images) / 1000,
        "repeats": _least_repeats(run),
        "cpu_us": cpu_us_per_request(run) if run.kind == "null_request" else None,
        "workloads": [found for w in run.workloads if (found := chapters(run, w, folder))],
        "published": _PUBLISHED,
        "files": raw_files,
    }


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
    stages = {stages.variant: stage_parts(stages) for stages in workload.stages}
    told = {name: by_kind(found) for name, found in stages.items() if found}
    steps = _waterfall(run, workload, rows)
    return {
        "workload": workload,
        "rows": rows,
        "findings": findings(rows, workload.parts),
        "waterfall": steps,
        "waterfall_table": tables.waterfall_table(steps.steps) if steps else "",
        "waterfall_pictures": [waterfall_plot.draw(folder, workload.name, workload.title, steps)]
        if steps
        else [],
        "qps": tables.qps_table(rows),
        "latency": tables.latency_table(rows),
        "usage": tables.usage_table(rows, _memory_bytes(run)),
        "pictures": plots.draw(folder, workload, rows),
        "parts": tables.parts_table(workload.parts) if workload.parts else "",
        "stages": tables.stages_table(stages) if stages else "",
        "stage_pictures": [stage_plot.draw(folder, workload.name, workload.title, told)]
        if told
        else [],
    }


def _waterfall(run: Run, workload: WorkloadRun, rows: Sequence[Row]) -> Waterfall | None:
    has_gpu = run.machine["gpus"] != NOT_AVAILABLE
    return waterfall(rows, on_gpu=may_use_gpu(workload.engine, has_gpu=has_gpu))


def _sweep_chapter(run: Run, workload: WorkloadRun, folder: Path) -> dict[str, Any]:
    rows = sweep_rows(run, workload)
    limit_ms = float(run.settings["tp99_limit_ms"])
    drawn = (folder, workload.name, workload.title, rows, limit_ms)
    return {
        "workload": workload,
        "sweep": _sweep_text(run, workload),
        "pictures": [sweep_plot.draw(*drawn)] if rows else [],
    }


def _sweep_text(run: Run, workload: WorkloadRun) -> str:
    """What each variant does best within the limit, and the table of all points."""
    rows = sweep_rows(run, workload)
    limit_ms = float(run.settings["tp99_limit_ms"])
    best = best_row(rows, limit_ms)
    lines = [
        f"- Best with TP99 <= {limit_ms:g} ms: "
        + (
            "no point."
            if best is None
            else f"**`{best.name}` with {_count(best.clients)}: {best.qps.median:.1f} images per "
            f"second, TP99 {number(best.tp_ms(0.99), 2)} ms.**"
        )
    ]
    for variant in workload.variants:
        own = [row for row in rows if row.name == variant.name]
        if own:
            most = max(own, key=lambda row: row.qps.median)
            lines.append(
                f"- `{variant.name}`: at most {most.qps.median:.1f} images per second, with "
                f"{_count(most.clients)} (TP99 {number(most.tp_ms(0.99), 2)} ms)."
            )
    return "\n".join([*lines, "", tables.sweep_table(rows)])


def _count(clients: int) -> str:
    return "1 client" if clients == 1 else f"{clients} clients"


def _memory_bytes(run: Run) -> int:
    return int(run.machine["memory_bytes"])


def _terminal(run: Run) -> str:
    """The tables of every workload."""
    parts = []
    for workload in run.workloads:
        if run.kind == "sweep":
            parts.append(_sweep_text(run, workload))
        elif rows := summarise(run, workload):
            found = _waterfall(run, workload, rows)
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
    return "\n".join(parts)


def quick_tables(run: Run) -> str:
    """The quick start's tables of a run with one server, its counts and its first errors."""
    row = summarise(run, run.workloads[0])[0]
    lines = [
        tables.short_tables(row, _memory_bytes(run)),
        f"{row.requests} requests in {row.windows[0].length_s:.2f} s, {row.failed_images} images "
        f"failed; QPS x mean latency = {number(row.concurrency, 2)} for {row.clients} clients; "
        f"client CPU {percent(row.usage['clients_cpu_percent'], 1)}, "
        f"foreign CPU {percent(row.usage['foreign_percent'], 1)}; marks: {tables.marks(row)}",
        *(f"error ({count} times): {error}" for error, count in row.first_errors),
    ]
    return "\n".join(lines)


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
    kind: Page(title, "load.md", _values, _terminal)
    for kind, title in (
        ("compare", "Comparison of the handlers"),
        ("sweep", "Throughput and latency over the number of clients"),
        ("run", "Load on a running server"),
        ("null_request", "Server CPU time per null request"),
    )
}
