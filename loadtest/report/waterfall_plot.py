"""The plot of a waterfall: a bar for what each change adds to the throughput before it."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation

from loadtest.report.style import PALETTE, picture
from loadtest.report.summary import Row
from loadtest.report.tables import factor
from loadtest.report.waterfall import Step, Waterfall

_WHOLE, _BOUND = PALETTE[2], "#cccccc"
_GAIN, _LOSS, _CHANCE = PALETTE[4], PALETTE[0], "#999999"
_THICKNESS = 0.6
_NOTE_CHARACTERS = 125


def draw(folder: Path, name: str, title: str, found: Waterfall) -> str:
    """Write the plot.

    Returns:
        The file's name.
    """
    return picture(folder, f"{name}-waterfall.png", lambda: _figure(title, found))


def _figure(title: str, found: Waterfall) -> Figure:
    first, last = found.steps[0].row, found.steps[-1].row
    notes = [
        line
        for note in found.notes
        for line in textwrap.wrap(note.replace("`", ""), _NOTE_CHARACTERS)
    ]
    bars = len(found.steps) + 1 + (found.bound is not None)
    figure = Figure(figsize=(10, 1.1 + 0.6 * bars + 0.16 * len(notes)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    names = [f"{first.name}\n{first.processes_text}"]
    _whole_bar(axes, 0, first, _WHOLE, "")
    for position, (before, step) in enumerate(pairwise(found.steps), 1):
        _step_bar(axes, position, before.row, step)
        names.append(f"+ {step.label}\n({step.row.name})")
    _whole_bar(axes, len(names), last, _WHOLE, f", {factor(found.whole)} in all")
    names.append(f"{last.name}\n{last.processes_text}")
    if (bound := found.bound) is not None:
        share = 100 * last.qps.median / bound.qps.median
        _whole_bar(axes, len(names), bound, _BOUND, f", of which {last.name} reaches {share:.0f} %")
        names.append(f"upper bound\n({bound.name}{bound.ran_in})")
    axes.set_yticks(range(len(names)), names, fontsize=9)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("images per second; lines: 95 % interval of each factor, from paired repeats")
    axes.set_title(f"{title}: what each change is worth", fontsize=11)
    if notes:
        figure.supxlabel("\n".join(notes), x=0.01, ha="left", fontsize=8, color="#444444")
    _make_room(figure, axes)
    return figure


def _whole_bar(axes: Axes, position: int, row: Row, colour: str, text: str) -> None:
    axes.barh(position, row.qps.median, _THICKNESS, color=colour)
    _write(axes, position, row.qps.median, f"{row.qps.median:.1f}{text}")


def _step_bar(axes: Axes, position: int, before: Row, step: Step) -> None:
    """From the throughput before the change to the one with it."""
    ratio = step.ratio
    if ratio is None:
        return
    start, end = before.qps.median, step.row.qps.median
    colour = (_GAIN if ratio.spread.median > 1 else _LOSS) if ratio.is_distinct else _CHANCE
    axes.barh(position, end - start, _THICKNESS, left=start, color=colour)
    right = max(start, end)
    low, high = ratio.interval.low, ratio.interval.high
    if low is not None and high is not None:
        # Of the factor: as wide as it is, beside the throughput that the table has.
        bounds = [end * bound / ratio.spread.median for bound in (low, high)]
        axes.plot(bounds, [position, position], color="black", linewidth=1.2)
        axes.plot(bounds, [position, position], "|", color="black", markersize=7)
        right = max(right, bounds[1])
    for value, upper in ((start, position - 1), (end, position)):
        edges = [upper + _THICKNESS / 2, upper + 1 - _THICKNESS / 2]
        axes.plot([value, value], edges, color="#666666", linewidth=0.8)
    _write(axes, position, right, factor(ratio) + _doubt(step))


def _doubt(step: Step) -> str:
    if step.ratio is None or step.ratio.is_distinct:
        return ""
    return ", one repeat" if step.ratio.interval.low is None else ", within chance"


def _write(axes: Axes, position: int, right: float, text: str) -> None:
    axes.annotate(
        text,
        (right, position),
        xytext=(6, 0),
        textcoords="offset points",
        va="center",
        fontsize=9,
    ).set_in_layout(False)


def _make_room(figure: Figure, axes: Axes) -> None:
    """End the scale where the longest text beside a bar does."""
    figure.draw_without_rendering()
    whole = axes.get_window_extent().width
    ends: Sequence[float] = [
        text.xy[0] / (1 - (text.get_window_extent().width + 12) / whole)
        for text in axes.texts
        if isinstance(text, Annotation)
    ]
    axes.set_xlim(0, max(ends))
