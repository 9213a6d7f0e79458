"""A chart as it is in both reports: a picture beside report.md, and SVG within report.html."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup
from matplotlib.figure import Figure

from loadtest.report.style import save, styled
from loadtest.report.svg import inline_svg

# Of the 255 that a file's name may have; the rest is for a hash and the ending.
_MOST_BYTES = 240


@dataclass(frozen=True)
class Chart:
    """What is to be drawn.

    Attributes:
        name: the picture's file without its ending; no other chart of the folder has it.
        subject: the workload.
        title: what it shows of it.
        description: its message in a sentence, for readers who do not see it.
        figure: draws it.
    """

    name: str
    subject: str
    title: str
    description: str
    figure: Callable[[], Figure]


@dataclass(frozen=True)
class DrawnChart:
    """What was drawn.

    Attributes:
        title: as in `Chart`.
        caption: the title with its subject.
        file: the picture in the folder.
        svg: the same for a page.
    """

    title: str
    caption: str
    file: str
    svg: Markup


def _short(name: str) -> str:
    """A name that a file system takes, which of a model's may be too long with what follows it."""
    encoded = name.encode()
    if len(encoded) <= _MOST_BYTES:
        return name
    kept = encoded[:_MOST_BYTES].decode(errors="ignore")
    return f"{kept}-{hashlib.sha256(encoded).hexdigest()[:8]}"


def drawn(folder: Path, chart: Chart) -> DrawnChart:
    """Draw a chart once, and write its picture into the folder."""
    figure = styled(chart.figure)
    # Laid out once for both.
    figure.draw_without_rendering()
    # "none" would leave a placeholder, for which each file is drawn twice.
    figure.set_layout_engine(None)
    svg = inline_svg(figure, chart.name, chart.description)
    file = f"{_short(chart.name)}.png"
    save(figure, folder / file)
    return DrawnChart(chart.title, f"{chart.subject}: {chart.title}", file, svg)
