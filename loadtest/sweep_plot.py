"""The plot of a sweep: TP99 over throughput, a line a variant, a point a number of clients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter
from matplotlib.transforms import Bbox

from loadtest.style import PALETTE, STYLE, save
from loadtest.sweep_summary import SweepPoint

_MARKERS = "osD^vP*X"
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
    """One point as it is drawn."""

    variant: str
    clients: int
    qps: float
    tp99_ms: float
    colour: str


def draw(folder: Path, name: str, title: str, points: Sequence[SweepPoint], limit_ms: float) -> str:
    """Write the plot.

    Args:
        folder: where to.
        name: beginning of the file name.
        title: of the plot.
        points: what `sweep_points` gives.
        limit_ms: a TP99 to mark.

    Returns:
        The file's name.
    """
    file = f"{name}-clients.png"
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10, 6), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        drawn: list[_Point] = []
        for index, (variant, line) in enumerate(groupby(points, key=lambda p: p.variant)):
            seen = [(p.qps, p.tp99_ms, p.clients) for p in line if p.tp99_ms is not None]
            colour = PALETTE[index % len(PALETTE)]
            axes.plot(
                [qps for qps, _, _ in seen],
                [tp99 for _, tp99, _ in seen],
                color=colour,
                marker=_MARKERS[index % len(_MARKERS)],
                markersize=5,
                linewidth=1.4,
                label=variant,
            )
            drawn += [_Point(variant, clients, qps, tp99, colour) for qps, tp99, clients in seen]
        axes.axhline(limit_ms, color="#888888", linewidth=0.8, linestyle=":")
        axes.annotate(
            f"{limit_ms:g} ms",
            (0.006, limit_ms),
            xycoords=("axes fraction", "data"),
            va="bottom",
            color="#666666",
        )
        _log_scale(axes)
        axes.set_xlim(left=0)
        axes.margins(x=0.08, y=0.12)
        axes.set_xlabel("throughput in images per second")
        axes.set_ylabel("TP99 in ms (logarithmic)")
        axes.set_title(f"{title}: numbers are closed-loop clients", fontsize=11)
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
        figure.draw_without_rendering()
        _label(axes, drawn)
        save(figure, folder / file)
    return file


def _log_scale(axes: Axes) -> None:
    """A logarithmic scale with plain numbers, also where it spans less than a decade."""
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.yaxis.set_minor_formatter(NullFormatter())


def _label(axes: Axes, drawn: Sequence[_Point]) -> None:
    """Write the number of clients beside every point, off the lines where there is room."""
    scale = axes.figure.dpi / 72
    pixels = [axes.transData.transform((point.qps, point.tp99_ms)) for point in drawn]
    markers = [Bbox.from_bounds(x - 4, y - 4, 8, 8) for x, y in pixels]
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
        (point.qps, point.tp99_ms),
        xytext=place,
        textcoords="offset points",
        ha="center",
        va="center",
        fontsize=8,
        color=point.colour,
    )
    text.set_path_effects([withStroke(linewidth=2, foreground="white")])
