"""How all plots look."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

# Distinct for readers who do not see red and green apart (Okabe and Ito; brown
# stands for their yellow, in which text cannot be read).
PALETTE = ("#D55E00", "#E69F00", "#0072B2", "#56B4E9", "#009E73", "#CC79A7", "#000000", "#8C564B")
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG; the same data gives the same picture."""
    figure.savefig(path, dpi=110, metadata={"Software": None})
