"""A chart as it is in both reports: a picture beside report.md, and SVG within report.html."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup
from matplotlib.figure import Figure

from loadtest.report.style import save, styled
from loadtest.report.svg import inline_svg


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


def drawn(folder: Path, chart: Chart) -> DrawnChart:
    """Draw a chart once, and write its picture into the folder."""
    figure = styled(chart.figure)
    # Laid out once for both.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    svg = inline_svg(figure, chart.name, chart.description)
    file = f"{chart.name}.png"
    save(figure, folder / file)
    return DrawnChart(chart.title, f"{chart.subject}: {chart.title}", file, svg)
