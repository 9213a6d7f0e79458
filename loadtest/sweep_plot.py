"""The plot of a sweep: TP99 over throughput, a line a variant, a point a number of clients."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
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
        drawn: list[tuple[float, float, int, str]] = []
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
            drawn += [(qps, tp99, clients, colour) for qps, tp99, clients in seen]
        axes.axhline(limit_ms, color="#888888", linewidth=0.8, linestyle=":")
        axes.annotate(
            f"{limit_ms:g} ms",
            (1.0, limit_ms),
            xycoords=("axes fraction", "data"),
            ha="right",
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


def _label(axes: Axes, drawn: Sequence[tuple[float, float, int, str]]) -> None:
    """Write the number of clients beside every point where there is room for it."""
    scale = axes.figure.dpi / 72
    pixels = [axes.transData.transform((qps, tp99)) for qps, tp99, _, _ in drawn]
    taken = [Bbox.from_bounds(x - 4, y - 4, 8, 8) for x, y in pixels]
    for (qps, tp99, clients, colour), (x, y) in zip(drawn, pixels, strict=True):
        width, height = 6.5 * scale * len(str(clients)), 9 * scale
        for dx, dy in _PLACES:
            left, bottom = x + dx * scale - width / 2, y + dy * scale - height / 2
            box = Bbox.from_bounds(left, bottom, width, height)
            if not any(box.overlaps(other) for other in taken):
                taken.append(box)
                axes.annotate(
                    str(clients),
                    (qps, tp99),
                    xytext=(dx, dy),
                    textcoords="offset points",
                    ha="center",
                    va="center",
                    fontsize=8,
                    color=colour,
                )
                break
