"""How all plots look, and what they are drawn of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

# Distinct for readers who do not see red and green apart (Okabe and Ito; brown
# stands for their yellow, in which text cannot be read).
PALETTE = ("#D55E00", "#E69F00", "#0072B2", "#56B4E9", "#009E73", "#CC79A7", "#000000", "#8C564B")
_STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


def picture(folder: Path, name: str, draw: Callable[[], Figure]) -> str:
    """Draw a figure and write it as a PNG; the same data gives the same picture.

    Returns:
        The file's name.
    """
    with mpl.rc_context(_STYLE):
        draw().savefig(folder / name, dpi=110, metadata={"Software": None})
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
    axes.plot([position] * len(values), values, "o", color="black", markersize=3, alpha=0.6)


def draw_limit(axes: Axes, value: float, text: str = "", colour: str = "#666666") -> None:
    """A dotted line at a value to compare with."""
    axes.axhline(value, color="#888888", linewidth=0.8, linestyle=":")
    axes.annotate(
        text, (0.006, value), xycoords=("axes fraction", "data"), va="bottom", color=colour
    )


def name_ticks(axes: Axes, names: Sequence[str]) -> None:
    """Names below bars."""
    axes.set_xticks(range(len(names)), names)
    axes.grid(visible=False, axis="x")


def scale_logarithmically(axes: Axes) -> None:
    """A logarithmic scale with plain numbers, also where it spans less than a decade."""
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.yaxis.set_minor_formatter(NullFormatter())
