"""The plot of a sweep: TP99 over throughput, a line a variant, a point a number of clients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.transforms import Bbox

from loadtest.report.charts import Chart
from loadtest.report.row_text import clients_text
from loadtest.report.style import (
    CHART_WIDTH_IN,
    INK,
    MARK,
    PALETTE,
    PAPER,
    draw_limit,
    picture,
    scale_logarithmically,
)
from loadtest.report.summary import Row
from loadtest.report.sweep_findings import best_rows
from loadtest.report.variant_colours import variant_colours

_MARKERS = "osD^vP*X"
# Diameter around the best point of a variant, in points.
_RING = 13
# Where a label may stand, in points from its marker: the nearest free place is taken.
_PLACES = [
    (radius * x, radius * y)
    for radius in (8, 14, 20)
    for x, y in (
        (0, 1),
        (1, 0),
        (0, -1),
        (-1, 0),
        (0.8, 0.8),
        (-0.8, 0.8),
        (0.8, -0.8),
        (-0.8, -0.8),
    )
]


@dataclass(frozen=True)
class _Point:
    """One row as it is drawn: images per second, TP99 in ms."""

    variant: str
    clients: int
    place: tuple[float, float]
    colour: str
    is_best: bool = False


def draw(folder: Path, name: str, title: str, rows: Sequence[Row], limit_ms: float | None) -> str:
    """Write a large plot, for many variants.

    Returns:
        The file's name.
    """

    def figure() -> Figure:
        drawn = _lines(rows, limit_ms, (10, 6), is_large=True)
        drawn.suptitle(f"{title}: numbers are closed-loop clients", fontsize=11)
        return drawn

    return picture(folder, f"{name}-clients.png", figure)


def chart(name: str, title: str, rows: Sequence[Row], limit_ms: float) -> Chart:
    """The chart of a workload."""
    most = {row.name: row for row in sorted(rows, key=lambda row: row.qps.median)}
    told = "; ".join(f"{row.name} {row.qps.median:.1f}" for row in most.values())
    return Chart(
        f"{name}-clients",
        title,
        "TP99 over throughput; numbers: clients",
        f"TP99 over throughput; the most images per second: {told}.",
        lambda: _lines(rows, limit_ms, (CHART_WIDTH_IN, 4.4), is_large=False),
    )


def rate_chart(name: str, title: str, rows: Sequence[Row]) -> Chart:
    """Throughput over the number of clients."""
    told = "; ".join(f"{row.name}, {clients_text(row)}: {row.qps.median:.1f}" for row in rows)
    return Chart(
        f"{name}-rates",
        title,
        "throughput over clients",
        f"Images per second, median of the repeats. {told}.",
        lambda: _rates(rows),
    )


def _rates(rows: Sequence[Row]) -> Figure:
    figure = Figure(figsize=(CHART_WIDTH_IN, 4.4), layout="constrained")
    axes = figure.subplots()
    colours = variant_colours(row.name for row in rows)
    for index, (variant, group) in enumerate(groupby(rows, key=lambda row: row.name)):
        line = [*group]
        medians = [row.qps.median for row in line]
        extremes = [
            [row.qps.median - row.qps.low for row in line],
            [row.qps.high - row.qps.median for row in line],
        ]
        clients, colour = [row.clients for row in line], colours[variant]
        axes.errorbar(clients, medians, yerr=extremes, fmt="none", capsize=2, color=colour)
        axes.plot(
            clients,
            medians,
            color=colour,
            marker=_marker(index),
            markersize=5,
            linewidth=1.4,
            label=variant,
            gid=MARK,
        )
    numbers = sorted({row.clients for row in rows})
    axes.set_xscale("log", base=2)
    axes.set_xticks(numbers, [str(number) for number in numbers])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_xlabel("closed-loop clients")
    axes.set_ylabel("images per second; bars: all repeats")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def _marker(index: int) -> str:
    """When the colours begin again, each gets another marker."""
    return _MARKERS[(index + index // len(PALETTE)) % len(_MARKERS)]


def _lines(
    rows: Sequence[Row], limit_ms: float | None, size_in: tuple[float, float], *, is_large: bool
) -> Figure:
    figure = Figure(figsize=size_in, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    drawn: list[_Point] = []
    best = [] if limit_ms is None else [*best_rows(rows, limit_ms).values()]
    colours = variant_colours(row.name for row in rows)
    for index, (variant, line) in enumerate(groupby(rows, key=lambda row: row.name)):
        colour, marker = colours[variant], _marker(index)
        points = [
            _Point(variant, row.clients, (row.qps.median, tp99_ms), colour, row in best)
            for row in line
            if (tp99_ms := row.tp_ms(0.99)) is not None
        ]
        axes.plot(
            [point.place[0] for point in points],
            [point.place[1] for point in points],
            color=colour,
            marker=marker,
            markersize=5,
            linewidth=1.4,
            label=variant,
            gid=MARK,
        )
        drawn += points
    if limit_ms is not None:
        draw_limit(axes, limit_ms, f"{limit_ms:g} ms")
        label = f"the most with TP99 <= {limit_ms:g} ms"
        for row in best:
            place = row.qps.median, row.tp_ms(0.99) or 0.0
            axes.plot(
                *place, "o", markersize=_RING, color=INK, fillstyle="none", gid=MARK, label=label
            )
            label = "_"
    scale_logarithmically(axes)
    axes.set_xlim(left=0)
    axes.margins(x=0.08, y=0.12)
    axes.set_xlabel("throughput in images per second")
    axes.set_ylabel("TP99 in ms (logarithmic)")
    if is_large:
        figure.legend(loc="outside right upper")
    else:
        figure.legend(loc="outside lower center", ncols=2)
    figure.draw_without_rendering()
    _label(axes, drawn)
    return figure


def _label(axes: Axes, drawn: Sequence[_Point]) -> None:
    """Write the number of clients beside every point, off the lines where there is room."""
    scale = axes.figure.dpi / 72
    pixels = [axes.transData.transform(point.place) for point in drawn]
    sizes = [_RING * scale if point.is_best else 8 for point in drawn]
    markers = [
        Bbox.from_bounds(x - size / 2, y - size / 2, size, size)
        for (x, y), size in zip(pixels, sizes, strict=True)
    ]
    lines = [
        Bbox.from_bounds(x0 + share * (x1 - x0) - 2, y0 + share * (y1 - y0) - 2, 4, 4)
        for (one, (x0, y0)), (other, (x1, y1)) in pairwise(zip(drawn, pixels, strict=True))
        if one.variant == other.variant
        for share in np.linspace(0, 1, max(2, int(np.hypot(x1 - x0, y1 - y0) / 4)))
    ]
    labels: list[Bbox] = []
    for point, (x, y) in zip(drawn, pixels, strict=True):
        width, height = 6.5 * scale * len(str(point.clients)), 9 * scale
        places = [
            (place, Bbox.from_bounds(x + left - width / 2, y + up - height / 2, width, height))
            for place in _PLACES
            for left, up in [(place[0] * scale, place[1] * scale)]
        ]
        # Crossing a line is better than no number, covering another number or a point is not.
        for obstacles in ([*markers, *labels, *lines], [*markers, *labels]):
            free = [(place, box) for place, box in places if not box.count_overlaps(obstacles)]
            if free:
                place, box = free[0]
                labels.append(box)
                _write(axes, point, place)
                break


def _write(axes: Axes, point: _Point, place: tuple[float, float]) -> None:
    text = axes.annotate(
        str(point.clients),
        point.place,
        xytext=place,
        textcoords="offset points",
        ha="center",
        va="center",
        fontsize=8,
        color=point.colour,
    )
    text.set_path_effects([withStroke(linewidth=2, foreground=PAPER)])
