"""The tables of the report, in Markdown that is also readable on a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from loadtest.measured_run import PartRun
from loadtest.stage_summary import StagePart
from loadtest.statistics import Interval, Ratio, Spread
from loadtest.summary import VariantSummary
from loadtest.sweep_summary import SweepPoint

NOT_AVAILABLE = "n/a"

# The rows of torchpipe's quick start, for reference only.
_PUBLISHED = (
    ("TensorRT behind a lock", "365.94", "26.32", "54.24", "84-85 %", "231-235 %", "4.6 %"),
    ("torchpipe", "776.62", "12.69", "19.81", "90-94 %", "318-332 %", "4.1 %"),
)


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with aligned columns; all but the first are right-aligned."""
    widths = [max(3, *(len(row[i]) for row in (header, *rows))) for i in range(len(header))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = []
    for row in (header, rule, *rows):
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def number(value: float | None, digits: int = 1) -> str:
    """A number, or "n/a"."""
    return NOT_AVAILABLE if value is None else f"{value:.{digits}f}"


def bracket(spread: Spread | None, digits: int = 1) -> str:
    """The extremes of a spread."""
    if spread is None:
        return NOT_AVAILABLE
    return f"[{spread.low:.{digits}f}, {spread.high:.{digits}f}]"


def interval(value: Interval | None, digits: int = 1) -> str:
    """An interval; a bound that the data does not reach is "?"."""
    if value is None or (value.low is None and value.high is None):
        return NOT_AVAILABLE
    low, high = (
        "?" if bound is None else f"{bound:.{digits}f}" for bound in (value.low, value.high)
    )
    return f"[{low}, {high}]"


def _ratio(value: Ratio | None) -> tuple[str, str, str]:
    if value is None:
        return (NOT_AVAILABLE, NOT_AVAILABLE, NOT_AVAILABLE)
    return (
        f"{value.spread.median:.2f}",
        bracket(value.spread, 2),
        interval(value.interval, 2),
    )


def marks(row: VariantSummary, clients: int) -> str:
    """What a reader must know before trusting the row."""
    found = []
    if not row.is_stable:
        found.append("unstable")
    if row.is_noisy:
        found.append("noisy")
    if row.little_mismatch(clients):
        found.append("off Little's law")
    if row.failed_images:
        found.append("errors")
    return ", ".join(found) or "-"


def qps_table(rows: Sequence[VariantSummary], clients: int) -> str:
    """Throughput, its ratio to the reference, and what limits it."""
    header = (
        "Variant",
        "QPS",
        "[min, max]",
        f"x {rows[0].reference}",
        "[min, max]",
        "95 % interval",
        "of the in-process limit",
        "requests",
        "errors",
        "marks",
    )
    return markdown(
        header,
        [
            (
                row.variant.name,
                number(row.qps.median),
                bracket(row.qps),
                *_ratio(row.ratio),
                percent(None if row.share_of_limit is None else 100 * row.share_of_limit),
                str(row.requests) if row.latencies_ms or row.failed_images else NOT_AVAILABLE,
                str(row.failed_images) if row.requests else NOT_AVAILABLE,
                marks(row, clients),
            )
            for row in rows
        ],
    )


def latency_table(rows: Sequence[VariantSummary], clients: int) -> str:
    """TP50 and TP99 in ms, pooled with intervals and over the repeats, and Little's law."""
    header = (
        "Variant",
        "TP50 ms",
        "95 % interval",
        "repeats: median [min, max]",
        "TP99 ms",
        "95 % interval",
        "repeats: median [min, max]",
        "n",
        f"QPS x mean (clients: {clients})",
    )
    return markdown(
        header,
        [
            (
                row.variant.name,
                number(row.pooled_percentile(0.50), 2),
                interval(row.tp50_interval, 2),
                _over_repeats(row.tp50_ms),
                number(row.pooled_percentile(0.99), 2),
                interval(row.tp99_interval, 2),
                _over_repeats(row.tp99_ms),
                str(len(row.latencies_ms)),
                number(row.concurrency, 2) + (" !" if row.little_mismatch(clients) else ""),
            )
            for row in rows
            if row.requests
        ],
    )


def _over_repeats(spread: Spread | None) -> str:
    if spread is None:
        return NOT_AVAILABLE
    return f"{spread.median:.2f} {bracket(spread, 2)}"


def utilisation_table(rows: Sequence[VariantSummary], memory_bytes: int) -> str:
    """GPU, CPU and memory of the server; CPU of the clients and of everybody else."""
    header = (
        "Variant",
        "GPU",
        "GPU memory",
        "CPU",
        "memory",
        "memory MiB",
        "client CPU",
        "foreign CPU",
        "steal",
    )
    return markdown(header, [_utilisation_row(row, memory_bytes) for row in rows])


def _utilisation_row(row: VariantSummary, memory_bytes: int) -> tuple[str, ...]:
    usage = row.usage
    # Without a server the samples cover loading as well, so they say nothing of the measured part.
    is_server = row.variant.server is not None
    cpu = usage.server_cpu_percent if is_server else None
    rss = usage.server_rss_bytes if is_server else None
    gpus = usage.gpu_percents if is_server else ()
    gpu_memory = usage.gpu_memory_bytes if is_server else None
    return (
        row.variant.name,
        gpu_percents(gpus),
        NOT_AVAILABLE if gpu_memory is None else f"{gpu_memory / 2**20:.0f} MiB",
        percent(cpu),
        percent(None if rss is None else 100 * rss / memory_bytes, 1),
        number(None if rss is None else rss / 2**20, 0),
        percent(usage.clients_cpu_percent if is_server else None, 1),
        percent(usage.foreign_percent, 1),
        percent(usage.steal_percent, 1),
    )


def gpu_percents(values: Sequence[float]) -> str:
    """Utilisation of every GPU, or "n/a"."""
    return " / ".join(percent(value) for value in values) or NOT_AVAILABLE


def percent(value: float | None, digits: int = 0) -> str:
    """A percentage, or "n/a"."""
    return NOT_AVAILABLE if value is None else f"{value:.{digits}f} %"


def parts_table(parts: Sequence[PartRun]) -> str:
    """Images per second of every part alone, by batch size."""
    sizes = sorted({int(size) for part in parts for size in part.images_per_s})
    header = ("Part", "threads", *(f"batch {size}" for size in sizes))
    return markdown(
        header,
        [
            (
                part.name,
                str(part.threads) if part.images_per_s else NOT_AVAILABLE,
                *(number(part.images_per_s.get(str(size)), 0) for size in sizes),
            )
            for part in parts
        ],
    )


def stages_table(variants: Mapping[str, Sequence[StagePart]]) -> str:
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
    return markdown(header, rows)


def sweep_table(points: Sequence[SweepPoint]) -> str:
    """Throughput, latency and utilisation of every variant and number of clients."""
    header = (
        "Variant",
        "clients",
        "QPS",
        "[min, max]",
        "TP50 ms",
        "TP99 ms",
        "95 % interval",
        "client CPU",
        "in processes",
        "server CPU",
        "GPU",
        "requests",
        "errors",
        "marks",
    )
    return markdown(
        header,
        [
            (
                point.variant,
                str(point.clients),
                number(point.qps),
                bracket(point.row.qps),
                number(point.row.pooled_percentile(0.50), 2),
                number(point.tp99_ms, 2),
                interval(point.row.tp99_interval, 2),
                percent(point.row.usage.clients_cpu_percent),
                str(point.client_processes),
                percent(point.row.usage.server_cpu_percent),
                gpu_percents(point.row.usage.gpu_percents),
                str(point.row.requests),
                str(point.row.failed_images),
                marks(point.row, point.clients),
            )
            for point in points
        ],
    )


def published_table() -> str:
    """The published comparison."""
    header = ("Published", "QPS", "TP50 ms", "TP99 ms", "GPU", "CPU", "memory")
    return markdown(header, _PUBLISHED)


def short_rows(row: VariantSummary, memory_bytes: int) -> str:
    """The quick start's three tables for one server."""
    name, gpu, _, cpu, memory, *_ = _utilisation_row(row, memory_bytes)
    latencies = (number(row.pooled_percentile(0.50), 2), number(row.pooled_percentile(0.99), 2))
    tables = (
        markdown(("Method", "QPS"), [(name, number(row.qps.median, 2))]),
        markdown(("Method", "TP50 ms", "TP99 ms"), [(name, *latencies)]),
        markdown(("Method", "GPU", "CPU", "memory"), [(name, gpu, cpu, memory)]),
    )
    return "\n".join(tables)
