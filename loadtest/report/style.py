"""How all plots look, and what they are drawn of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

# Distinct for readers who do not see red and green apart (Okabe and Ito; brown
# stands for their yellow, in which text cannot be read).
PALETTE = ("#D55E00", "#E69F00", "#0072B2", "#56B4E9", "#009E73", "#CC79A7", "#000000", "#8C564B")
# Each has its own value, by which a page's theme knows it again: see `loadtest.report.svg`.
INK, MUTED, FAINT, GRID, PAPER = "#1b1f24", "#59636e", "#999999", "#dddddd", "#ffffff"
BOUND, ON_BAR = "#c4c9cf", "#101215"
_DARK_PALETTE = (
    *("#f0813a", "#f2b53c", "#4ba3dc", "#9ad6fb", "#2fc79a", "#e39bc4", "#e6e6e6", "#c79184"),
)
THEME = {
    "ink": (INK, "#e8eaed"),
    "muted": (MUTED, "#a3adb8"),
    "faint": (FAINT, "#7d8590"),
    "grid": (GRID, "#32373e"),
    "paper": (PAPER, "#15181c"),
    "bound": (BOUND, "#596069"),
    # dark letters can be read on all colours of bars, in either theme
    "on-bar": (ON_BAR, ON_BAR),
    **{
        f"series-{number}": (light.lower(), dark)
        for number, (light, dark) in enumerate(zip(PALETTE, _DARK_PALETTE, strict=True), 1)
    },
}
"""A page's CSS variables: name to the value in light, which is that of figures, and in the dark."""
MARK = "mark"
"""The gid of artists that show data; in a page they are of this class."""
REPEATS: dict[str, Any] = {"color": INK, "markersize": 3, "alpha": 0.6}
"""Dots for the repeats of what a bar shows."""
CHART_WIDTH_IN = 4.6
"""Of a chart that is as well read on a phone as beside another one."""
_STYLE: dict[Any, Any] = {
    "font.size": 9.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    # Letters stay letters, in the fonts of the page.
    "svg.fonttype": "none",
}
_DPI = 150
# Beside a text, with the gap between it and its bar.
_MARGIN_PX = 14
_RIGHT, _LEFT, _WITHIN = "right", "left", "within"
# By which a scale gets longer, a tenth each.
_MOST_STEPS = 20


def styled(draw: Callable[[], Figure]) -> Figure:
    """A figure in this style."""
    with mpl.rc_context(_STYLE):
        return draw()


def save(figure: Figure, path: Path, dpi: int = _DPI) -> None:
    """Write a figure as a PNG; the same data gives the same picture."""
    with mpl.rc_context(_STYLE):
        figure.savefig(path, dpi=dpi, metadata={"Software": None})


def picture(folder: Path, name: str, draw: Callable[[], Figure]) -> str:
    """Draw a large figure and write it as a PNG.

    Returns:
        The file's name.
    """
    save(styled(draw), folder / name, dpi=110)
    return name


def write_value(
    axes: Axes, position: float, height: float, text: str, fontsize: int | None = None
) -> None:
    """A number above a bar."""
    axes.annotate(
        text,
        (position, height),
        xytext=(0, 4),
        textcoords="offset points",
        ha="center",
        fontsize=fontsize,
    )


def draw_dots(axes: Axes, position: float, values: Sequence[float]) -> None:
    """The repeats on a bar."""
    axes.plot([position] * len(values), values, "o", **REPEATS)


def draw_limit(axes: Axes, value: float, text: str = "", colour: str = MUTED) -> None:
    """A dotted line at a value to compare with."""
    axes.axhline(value, color=FAINT, linewidth=0.8, linestyle=":")
    axes.annotate(
        text, (0.006, value), xycoords=("axes fraction", "data"), va="bottom", color=colour
    )


def name_ticks(axes: Axes, names: Sequence[str]) -> None:
    """Names below bars."""
    axes.set_xticks(range(len(names)), names)
    axes.grid(visible=False, axis="x")


def rows_of_bars(axes: Axes, names: Sequence[str]) -> None:
    """Horizontal bars from position 0 down, each with its name above it, where there is room."""
    axes.set_ylim(len(names) - 0.6, -0.75)
    axes.set_yticks([])
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    for position, name in enumerate(names):
        axes.annotate(
            name,
            (0, position - 0.27),
            xycoords=("axes fraction", "data"),
            xytext=(0, 2),
            textcoords="offset points",
            va="bottom",
            # lines between bars end at their names
            bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 0.8},
        ).set_in_layout(False)


def write_beside(axes: Axes, position: float, right: float, text: str) -> Annotation:
    """Text to the right of a bar; `make_room` keeps it within the figure."""
    written = axes.annotate(
        text, (right, position), xytext=(5, 0), textcoords="offset points", va="center", fontsize=9
    )
    written.set_in_layout(False)
    return written


def make_room(figure: Figure, axes: Axes) -> None:
    """End the horizontal scale, which starts at 0, where the longest text beside a bar does."""
    figure.draw_without_rendering()
    whole = axes.get_window_extent().width
    ends = [
        text.xy[0] / max(0.2, 1 - (text.get_window_extent().width + _MARGIN_PX) / whole)
        for text in axes.texts
        if isinstance(text, Annotation) and text.xycoords == "data"
    ]
    axes.set_xlim(0, max(ends, default=1.0) or 1.0)


@dataclass(frozen=True)
class BarText:
    """What is to be written of a horizontal bar.

    Attributes:
        position: the bar's.
        left: where what is drawn of it begins, as data.
        right: where that ends.
        text: what it says.
        plain: from where to where nothing else is drawn on the bar, so that the text may be there.
        on_bar: its colour then, which can be read in both themes.
    """

    position: float
    left: float
    right: float
    text: str
    plain: tuple[float, float]
    on_bar: str = ON_BAR


def fit_texts(figure: Figure, axes: Axes, texts: Sequence[BarText]) -> None:
    """Write the texts of bars, and end the horizontal scale, which starts at 0, with the bars.

    A text is to the right of its bar, or without room there to the left of it, or on it. The scale
    is longer than the bars only as far as one of them fits nowhere else.
    """
    furthest = 1.02 * max(text.right for text in texts) or 1.0
    axes.set_xlim(0, furthest)
    figure.draw_without_rendering()
    whole_px = axes.get_window_extent().width
    written = [write_beside(axes, text.position, text.right, text.text) for text in texts]
    shares = [(it.get_window_extent().width + _MARGIN_PX) / whole_px for it in written]
    for step in range(_MOST_STEPS):
        end = furthest * 1.1**step
        places = [_place(text, share * end, end) for text, share in zip(texts, shares, strict=True)]
        if None not in places:
            break
    axes.set_xlim(0, end)
    for it, text, place in zip(written, texts, places, strict=True):
        if place in (_LEFT, _WITHIN):
            it.xy = (text.left if place == _LEFT else text.plain[1], text.position)
            it.set(x=-5, ha="right", color=INK if place == _LEFT else text.on_bar)


def _place(text: BarText, width: float, end: float) -> str | None:
    """Where a text goes that is as wide as so much data; None where it fits nowhere."""
    if end - text.right >= width:
        return _RIGHT
    if text.left >= width:
        return _LEFT
    return _WITHIN if text.plain[1] - text.plain[0] >= width else None


def scale_logarithmically(axes: Axes) -> None:
    """A logarithmic scale with plain numbers, also where it spans less than a decade."""
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.yaxis.set_minor_formatter(NullFormatter())
