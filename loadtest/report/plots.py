"""Charts of a workload: throughput, latency and its distribution, utilisation over time."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from loadtest.records.metrics import METRICS, Metric
from loadtest.records.run import Window, WorkloadRun
from loadtest.report.charts import Chart
from loadtest.report.style import (
    CHART_WIDTH_IN,
    INK,
    MARK,
    REPEATS,
    make_room,
    rows_of_bars,
    write_beside,
)
from loadtest.report.summary import Row
from loadtest.report.variant_colours import variant_colours
from measurement.statistics import Interval

# Lines differ in their dashes, too.
_DASHES = ("-", "--", "-.", ":")
# A span of a few clock ticks has no meaningful mean.
_SHORTEST_SPAN_S = 0.1
# Of a distribution: as many as the eye can tell apart.
_POINTS = 120
# A scale on which the slowest request is this many times the usual one is logarithmic.
_LONG_TAIL = 12


def first_charts(workload: WorkloadRun, rows: Sequence[Row]) -> list[Chart]:
    """Throughput and latency."""
    colours = _colours(workload)
    served = [row for row in rows if row.latencies_ms]
    rates = "; ".join(f"{row.name} {row.qps.median:.1f}" for row in rows)
    charts = [
        Chart(
            f"{workload.name}-throughput",
            workload.title,
            "throughput",
            f"Images per second, median of the repeats: {rates}.",
            lambda: _throughput(rows, colours),
        )
    ]
    if served:
        tails = "; ".join(
            f"{row.name} {row.tp_ms(0.50) or 0:.1f} and {row.tp_ms(0.99) or 0:.1f}"
            for row in served
        )
        charts.append(
            Chart(
                f"{workload.name}-latency",
                workload.title,
                "response time",
                f"TP50 and TP99 in ms: {tails}.",
                lambda: _latency(served, colours),
            )
        )
    return charts


def distribution_chart(workload: WorkloadRun, rows: Sequence[Row]) -> Chart | None:
    """How many requests took longer than so long; None without requests."""
    served = [row for row in rows if row.latencies_ms]
    if not served:
        return None
    slowest = "; ".join(f"{row.name} {row.latencies_ms[-1]:.1f}" for row in served)
    return Chart(
        f"{workload.name}-latency-distribution",
        workload.title,
        "latency of all repeats",
        f"Distribution of latencies with its slow tail; the slowest in ms: {slowest}.",
        lambda: _distribution(served, _colours(workload)),
    )


def utilisation_chart(workload: WorkloadRun, rows: Sequence[Row]) -> Chart | None:
    """Every metric over the time of the windows; None where none was sampled."""
    names = {row.name for row in rows if row.latencies_ms}
    windows = [w for w in workload.windows if w.variant in names and len(w.samples) > 1]
    metrics = [
        metric
        for metric in METRICS
        if metric.axis and any(_line(window, metric)[0] for window in windows)
    ]
    if not metrics:
        return None
    metrics.sort(key=lambda metric: metric.top or 0.0)
    return Chart(
        f"{workload.name}-utilisation",
        workload.title,
        "utilisation, one line per repeat",
        f"Over the time of the windows: {', '.join(metric.axis for metric in metrics)}.",
        lambda: _utilisation(windows, metrics, _colours(workload)),
    )


def _colours(workload: WorkloadRun) -> dict[str, str]:
    return variant_colours(variant.name for variant in workload.variants)


def _rows_figure(rows: Sequence[Row]) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(CHART_WIDTH_IN, 0.6 + 0.5 * len(rows)), layout="constrained")
    axes = figure.subplots()
    rows_of_bars(axes, [row.name for row in rows])
    return figure, axes


def _throughput(rows: Sequence[Row], colours: dict[str, str]) -> Figure:
    figure, axes = _rows_figure(rows)
    for position, row in enumerate(rows):
        axes.barh(position, row.qps.median, 0.42, color=colours[row.name], gid=MARK)
        axes.plot([*row.rates.values()], [position] * len(row.rates), "o", **REPEATS)
        write_beside(axes, position, row.qps.high, f"{row.qps.median:.1f}")
    axes.set_xlabel("images per second: median, dots are repeats")
    make_room(figure, axes)
    return figure


def _latency(served: Sequence[Row], colours: dict[str, str]) -> Figure:
    figure, axes = _rows_figure(served)
    for position, row in enumerate(served):
        for offset, q, alpha in ((-0.11, 0.50, 0.55), (0.11, 0.99, 1.0)):
            if (value := row.tp_ms(q)) is not None:
                place = (value, position + offset)
                _latency_bar(axes, place, row.tp_interval(q), colours[row.name], alpha)
    axes.set_xlabel("ms: TP50 (pale) and TP99, with 95 % intervals")
    make_room(figure, axes)
    return figure


def _latency_bar(
    axes: Axes, place: tuple[float, float], bounds: Interval | None, colour: str, alpha: float
) -> None:
    value, position = place
    low = value if bounds is None or bounds.low is None else bounds.low
    high = value if bounds is None or bounds.high is None else bounds.high
    # The percentile is a rank of its own and may lie a rank outside of a narrow interval.
    errors = [[max(0.0, value - low)], [max(0.0, high - value)]]
    axes.barh(position, value, 0.2, color=colour, alpha=alpha, gid=MARK)
    axes.errorbar(value, position, xerr=errors, color=INK, capsize=2, linewidth=1)
    write_beside(axes, position, max(value, high), f"{value:.1f}")


def _distribution(served: Sequence[Row], colours: dict[str, str]) -> Figure:
    figure = Figure(figsize=(CHART_WIDTH_IN, 3.6), layout="constrained")
    axes = figure.subplots()
    for index, row in enumerate(served):
        latencies, slower = _tail(row.latencies_ms)
        axes.plot(
            latencies,
            slower,
            color=colours[row.name],
            linestyle=_DASHES[index % len(_DASHES)],
            linewidth=1.6,
            label=f"{row.name} (n = {len(row.latencies_ms)})",
            gid=MARK,
        )
    axes.set_yscale("log")
    axes.set_ylim(1.15, 0.5 / max(len(row.latencies_ms) for row in served))
    ticks = [0.5, 0.1, 0.01, 0.001, 0.0001, 0.00001]
    shown = [tick for tick in ticks if tick >= axes.get_ylim()[1]]
    axes.set_yticks(shown, [f"TP{100 * (1 - tick):.5g}" for tick in shown])
    axes.minorticks_off()
    usual_ms = min(row.tp_ms(0.50) or 0.0 for row in served)
    if max(row.latencies_ms[-1] for row in served) > _LONG_TAIL * usual_ms > 0:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    else:
        axes.set_xlim(left=0)
    axes.set_xlabel("latency in ms")
    axes.set_ylabel("share of requests answered within")
    figure.legend(loc="outside lower center", ncols=1 if len(served) < 3 else 2)
    return figure


def _tail(latencies_ms: Sequence[float]) -> tuple[list[float], list[float]]:
    """Latencies, and the share of requests that took longer: every one of the slowest."""
    n = len(latencies_ms)
    slower_than = np.unique(np.geomspace(1, n, _POINTS).round().astype(int))
    ranks = [n - int(count) for count in reversed(slower_than)]
    return [latencies_ms[rank] for rank in ranks], [(n - rank - 0.5) / n for rank in ranks]


def _utilisation(
    windows: Sequence[Window], metrics: Sequence[Metric], colours: dict[str, str]
) -> Figure:
    """A panel a metric, a line a window."""
    figure = Figure(figsize=(CHART_WIDTH_IN, 0.4 + 1.3 * len(metrics)), layout="constrained")
    panels = figure.subplots(len(metrics), 1, sharex=True, squeeze=False)[:, 0]
    for panel, metric in zip(panels, metrics, strict=True):
        for window in windows:
            times, values = _line(window, metric)
            panel.plot(
                times,
                values,
                color=colours[window.variant],
                linewidth=1.1,
                alpha=0.7,
                label=window.variant,
                gid=MARK,
            )
        panel.set_title(metric.axis.replace("\n", " "), loc="left", fontsize=9.5)
        panel.set_ylim(0, 1.15 * (metric.top or panel.get_ylim()[1]))
    panels[-1].set_xlabel("time in the window, in s")
    handles, labels = panels[0].get_legend_handles_labels()
    first = dict(zip(reversed(labels), reversed(handles), strict=True))
    shown = [*dict.fromkeys(labels)]
    figure.legend([first[n] for n in shown], shown, loc="outside lower center", ncols=2)
    return figure


def _line(window: Window, metric: Metric) -> tuple[list[float], list[float]]:
    """Readings over time, or of a counter its mean growth between neighbouring samples."""
    readings = [(sample.at_s, sample.values.get(metric.name)) for sample in window.samples]
    seen: list[tuple[float, Any]] = [entry for entry in readings if entry[1] not in (None, [])]
    if (plotted := metric.plotted) is not None:
        return [at_s for at_s, _ in seen], [plotted(value) for _, value in seen]
    spans = [pair for pair in pairwise(seen) if pair[1][0] - pair[0][0] >= _SHORTEST_SPAN_S]
    return (
        [(before[0] + after[0]) / 2 for before, after in spans],
        [100 * (after[1] - before[1]) / (after[0] - before[0]) for before, after in spans],
    )
