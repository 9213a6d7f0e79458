"""Plots of a workload as PNG files."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle, pairwise
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from loadtest.measured_run import Repeat, Sample, WorkloadRun
from loadtest.statistics import Interval
from loadtest.style import PALETTE, STYLE, save
from loadtest.summary import VariantSummary
from loadtest.variants import VARIANTS

# The rows of every comparison have the same colour in all reports.
_COLOURS = dict(zip(VARIANTS, PALETTE, strict=False))


def draw(folder: Path, workload: WorkloadRun, rows: Sequence[VariantSummary]) -> list[str]:
    """Write the plots of one workload.

    Returns:
        Their file names.
    """
    served = [row for row in rows if row.latencies_ms]
    names = []
    with mpl.rc_context(STYLE):
        for suffix, figure in (
            ("throughput-and-latency", _bars(workload, rows, served)),
            ("latency-distribution", _distribution(workload, served) if served else None),
            ("utilisation", _utilisation(workload, served) if served else None),
        ):
            if figure is not None:
                name = f"{workload.name}-{suffix}.png"
                save(figure, folder / name)
                names.append(name)
    return names


def _colours(workload: WorkloadRun) -> dict[str, str]:
    """Variant name to colour; variants with several workers take what is left."""
    names = [variant.name for variant in workload.variants]
    colours = {name: _COLOURS[name] for name in names if name in _COLOURS}
    free = cycle([colour for colour in PALETTE if colour not in colours.values()] or PALETTE)
    return {name: colours.get(name) or next(free) for name in names}


def _title(workload: WorkloadRun) -> str:
    return f"{workload.name}, {workload.engine} {workload.precision}"


def _bars(
    workload: WorkloadRun, rows: Sequence[VariantSummary], served: Sequence[VariantSummary]
) -> Figure:
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    figure.suptitle(_title(workload))
    left, right = figure.subplots(1, 2)
    colours = _colours(workload)
    for position, row in enumerate(rows):
        left.bar(position, row.qps.median, 0.6, color=colours[row.variant.name])
        values = [repeat.images_per_s for repeat in row.repeats]
        left.plot([position] * len(values), values, "o", color="black", markersize=3, alpha=0.6)
        left.annotate(
            f"{row.qps.median:.1f}",
            (position, row.qps.high),
            xytext=(0, 4),
            textcoords="offset points",
            ha="center",
        )
    _name_ticks(left, [row.variant.name for row in rows])
    left.set_ylabel("images per second")
    left.set_title("Throughput: median; dots are repeats", fontsize=10)
    left.set_ylim(0, max(row.qps.high for row in rows) * 1.12)

    for offset, q, alpha in ((-0.2, 0.50, 0.55), (0.2, 0.99, 1.0)):
        for position, row in enumerate(served):
            value = row.pooled_percentile(q)
            bounds = row.tp50_interval if q == 0.50 else row.tp99_interval
            if value is not None:
                colour = colours[row.variant.name]
                _latency_bar(right, position + offset, value, bounds, colour, alpha)
    _name_ticks(right, [row.variant.name for row in served])
    right.set_ylabel("latency in ms")
    right.set_title("TP50 (pale) and TP99 with 95 % intervals", fontsize=10)
    right.margins(y=0.12)
    return figure


def _latency_bar(
    axes: Axes,
    position: float,
    value: float,
    bounds: Interval | None,
    colour: str,
    alpha: float,
) -> None:
    low = value if bounds is None or bounds.low is None else bounds.low
    high = value if bounds is None or bounds.high is None else bounds.high
    # The percentile is a rank of its own and may lie a rank outside of a narrow interval.
    errors = [[max(0.0, value - low)], [max(0.0, high - value)]]
    axes.bar(position, value, 0.36, color=colour, alpha=alpha)
    axes.errorbar(position, value, yerr=errors, color="black", capsize=3, linewidth=1)
    axes.annotate(
        f"{value:.1f}",
        (position, max(value, high)),
        xytext=(0, 4),
        textcoords="offset points",
        ha="center",
    )


def _name_ticks(axes: Axes, names: Sequence[str]) -> None:
    axes.set_xticks(range(len(names)), [_wrapped(name) for name in names])
    axes.grid(visible=False, axis="x")


def _wrapped(name: str) -> str:
    """A long name on two lines."""
    return name.replace("-", "-\n", 1) if len(name) > 12 else name


def _distribution(workload: WorkloadRun, served: Sequence[VariantSummary]) -> Figure:
    figure = Figure(figsize=(8, 4.6), layout="constrained")
    axes = figure.subplots()
    colours = _colours(workload)
    for row in served:
        axes.ecdf(
            row.latencies_ms,
            color=colours[row.variant.name],
            linewidth=1.6,
            label=f"{row.variant.name} (n = {len(row.latencies_ms)})",
        )
    for share, name in ((0.50, "TP50"), (0.99, "TP99")):
        axes.axhline(share, color="#888888", linewidth=0.8, linestyle=":")
        axes.annotate(name, (0.006, share), xycoords=("axes fraction", "data"), va="bottom")
    axes.set_xlim(left=0)
    axes.set_ylim(0, 1.06)
    axes.set_xlabel("latency in ms")
    axes.set_ylabel("share of requests answered within")
    axes.set_title(f"{_title(workload)}: latency of all repeats", fontsize=11)
    axes.legend(loc="lower right")
    return figure


def _utilisation(workload: WorkloadRun, served: Sequence[VariantSummary]) -> Figure:
    repeats = [
        repeat
        for repeat in workload.repeats
        if repeat.variant in {row.variant.name for row in served} and len(repeat.samples) > 1
    ]
    with_gpu = any(sample.gpus for repeat in repeats for sample in repeat.samples)
    panels = 3 if with_gpu else 2
    figure = Figure(figsize=(8, 2.6 * panels), layout="constrained")
    axes = figure.subplots(panels, 1, sharex=True)
    labelled: set[str] = set()
    colours = _colours(workload)
    for repeat in repeats:
        colour = colours[repeat.variant]
        label = None if repeat.variant in labelled else repeat.variant
        labelled.add(repeat.variant)
        axes[0].plot(*_cpu_percent(repeat), color=colour, linewidth=1.1, alpha=0.7, label=label)
        seen = [s for s in repeat.samples if s.server_rss_bytes is not None]
        axes[1].plot(
            [sample.at_s for sample in seen],
            [(sample.server_rss_bytes or 0) / 2**20 for sample in seen],
            color=colour,
            linewidth=1.1,
            alpha=0.7,
        )
        if with_gpu:
            axes[2].plot(
                [sample.at_s for sample in repeat.samples],
                [_busiest(sample) for sample in repeat.samples],
                color=colour,
                linewidth=1.1,
                alpha=0.7,
            )
    axes[0].set_ylabel("server CPU in %\n(100 % = one core)")
    axes[1].set_ylabel("server memory\nin MiB")
    if with_gpu:
        axes[2].set_ylabel("busiest GPU in %")
    for panel in axes:
        panel.set_ylim(0, 1.15 * panel.get_ylim()[1])
    axes[-1].set_xlabel("time in the window, in s")
    axes[0].set_title(f"{_title(workload)}: one line per repeat", fontsize=11)
    if labelled:
        axes[0].legend(loc="lower center", ncols=len(labelled))
    return figure


def _busiest(sample: Sample) -> float:
    return max((gpu.utilisation_percent for gpu in sample.gpus), default=0.0)


def _cpu_percent(repeat: Repeat) -> tuple[list[float], list[float]]:
    """Mean CPU between neighbouring samples, at the middle between them."""
    times, values = [], []
    seen = [s for s in repeat.samples if s.server_cpu_s is not None]
    for before, after in pairwise(seen):
        span_s = after.at_s - before.at_s
        # A span of a few clock ticks has no meaningful mean.
        if span_s >= 0.1:
            used_s = (after.server_cpu_s or 0.0) - (before.server_cpu_s or 0.0)
            times.append((before.at_s + after.at_s) / 2)
            values.append(100 * used_s / span_s)
    return times, values
