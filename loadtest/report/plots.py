"""Plots of a workload: throughput and latency, latency distribution, utilisation over time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import cycle, pairwise
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from loadtest.records.metrics import METRICS, Metric
from loadtest.records.run import Window, WorkloadRun
from loadtest.report.style import PALETTE, draw_dots, draw_limit, name_ticks, picture, write_value
from loadtest.report.summary import Row
from loadtest.servers.variants import VARIANTS
from measurement.statistics import Interval

# The rows of every comparison have the same colour in all reports.
_COLOURS = dict(zip(VARIANTS, PALETTE, strict=False))
# A span of a few clock ticks has no meaningful mean.
_SHORTEST_SPAN_S = 0.1


def draw(folder: Path, workload: WorkloadRun, rows: Sequence[Row]) -> list[str]:
    """Write the plots of one workload.

    Returns:
        Their file names.
    """
    colours = _colours(workload)
    served = [row for row in rows if row.latencies_ms]

    figures: dict[str, Callable[[], Figure]] = {
        "throughput-and-latency": lambda: _bars(workload, rows, served, colours)
    }
    if served:
        figures["latency-distribution"] = lambda: _distribution(workload, served, colours)
        figures["utilisation"] = lambda: _utilisation(workload, served, colours)
    return [
        picture(folder, f"{workload.name}-{suffix}.png", figure)
        for suffix, figure in figures.items()
    ]


def _colours(workload: WorkloadRun) -> dict[str, str]:
    """Variant name to colour; variants with several workers take what is left."""
    names = [variant.name for variant in workload.variants]
    colours = {name: _COLOURS[name] for name in names if name in _COLOURS}
    free = cycle([colour for colour in PALETTE if colour not in colours.values()] or PALETTE)
    return {name: colours.get(name) or next(free) for name in names}


def _bars(
    workload: WorkloadRun, rows: Sequence[Row], served: Sequence[Row], colours: dict[str, str]
) -> Figure:
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    figure.suptitle(workload.title)
    left, right = figure.subplots(1, 2)
    for position, row in enumerate(rows):
        left.bar(position, row.qps.median, 0.6, color=colours[row.name])
        draw_dots(left, position, [*row.rates.values()])
        write_value(left, position, row.qps.high, f"{row.qps.median:.1f}")
    name_ticks(left, [_wrapped(row.name) for row in rows])
    left.set_ylabel("images per second")
    left.set_title("Throughput: median; dots are repeats", fontsize=10)
    # Where nothing was answered right there is nothing to scale.
    left.set_ylim(0, max(row.qps.high for row in rows) * 1.12 or 1)

    for offset, q, alpha in ((-0.2, 0.50, 0.55), (0.2, 0.99, 1.0)):
        for position, row in enumerate(served):
            if (value := row.tp_ms(q)) is not None:
                place = (position + offset, value)
                _latency_bar(right, place, row.tp_interval(q), colours[row.name], alpha)
    name_ticks(right, [_wrapped(row.name) for row in served])
    right.set_ylabel("latency in ms")
    right.set_title("TP50 (pale) and TP99 with 95 % intervals", fontsize=10)
    right.margins(y=0.12)
    return figure


def _latency_bar(
    axes: Axes, place: tuple[float, float], bounds: Interval | None, colour: str, alpha: float
) -> None:
    position, value = place
    low = value if bounds is None or bounds.low is None else bounds.low
    high = value if bounds is None or bounds.high is None else bounds.high
    # The percentile is a rank of its own and may lie a rank outside of a narrow interval.
    errors = [[max(0.0, value - low)], [max(0.0, high - value)]]
    axes.bar(position, value, 0.36, color=colour, alpha=alpha)
    axes.errorbar(position, value, yerr=errors, color="black", capsize=3, linewidth=1)
    write_value(axes, position, max(value, high), f"{value:.1f}")


def _wrapped(name: str) -> str:
    """A long name on two lines."""
    return name.replace("-", "-\n", 1) if len(name) > 12 else name


def _distribution(workload: WorkloadRun, served: Sequence[Row], colours: dict[str, str]) -> Figure:
    figure = Figure(figsize=(8, 4.6), layout="constrained")
    axes = figure.subplots()
    for row in served:
        axes.ecdf(
            row.latencies_ms,
            color=colours[row.name],
            linewidth=1.6,
            label=f"{row.name} (n = {len(row.latencies_ms)})",
        )
    for share, name in ((0.50, "TP50"), (0.99, "TP99")):
        draw_limit(axes, share, name, colour="black")
    axes.set_xlim(left=0)
    axes.set_ylim(0, 1.06)
    axes.set_xlabel("latency in ms")
    axes.set_ylabel("share of requests answered within")
    axes.set_title(f"{workload.title}: latency of all repeats", fontsize=11)
    axes.legend(loc="lower right")
    return figure


def _utilisation(workload: WorkloadRun, served: Sequence[Row], colours: dict[str, str]) -> Figure:
    """A panel a metric, a line a window."""
    names = {row.name for row in served}
    windows = [w for w in workload.windows if w.variant in names and len(w.samples) > 1]
    metrics = [
        metric
        for metric in METRICS
        if metric.axis and any(_line(window, metric)[0] for window in windows)
    ]
    metrics.sort(key=lambda metric: metric.top or 0.0)
    figure = Figure(figsize=(8, 2.6 * max(1, len(metrics))), layout="constrained")
    panels = figure.subplots(max(1, len(metrics)), 1, sharex=True, squeeze=False)[:, 0]
    for panel, metric in zip(panels, metrics, strict=False):
        for window in windows:
            times, values = _line(window, metric)
            panel.plot(
                times,
                values,
                color=colours[window.variant],
                linewidth=1.1,
                alpha=0.7,
                label=window.variant,
            )
        panel.set_ylabel(metric.axis)
        panel.set_ylim(0, 1.15 * (metric.top or panel.get_ylim()[1]))
    panels[-1].set_xlabel("time in the window, in s")
    panels[0].set_title(f"{workload.title}: one line per repeat", fontsize=11)
    handles, labels = panels[0].get_legend_handles_labels()
    first = dict(zip(reversed(labels), reversed(handles), strict=True))
    if first:
        shown = [*dict.fromkeys(labels)]
        panels[0].legend([first[n] for n in shown], shown, loc="lower center", ncols=len(shown))
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
