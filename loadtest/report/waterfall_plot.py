"""The chart of the waterfall: a bar for what each change adds to the throughput before it."""

from __future__ import annotations

from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from loadtest.report.charts import Chart
from loadtest.report.row_text import processes_text, ran_in
from loadtest.report.style import (
    BOUND,
    CHART_WIDTH_IN,
    FAINT,
    INK,
    MARK,
    ON_BAR,
    PALETTE,
    BarText,
    fit_texts,
    rows_of_bars,
)
from loadtest.report.summary import Row
from loadtest.report.tables import factor
from loadtest.report.waterfall import Step, Waterfall
from measurement.statistics import Ratio

_WHOLE = PALETTE[3]
_GAIN, _LOSS, _CHANCE = PALETTE[4], PALETTE[0], FAINT
_THICKNESS = 0.42


def chart(name: str, title: str, found: Waterfall) -> Chart:
    """The chart of a workload."""
    first, last = found.steps[0].row, found.steps[-1].row
    steps = "; ".join(
        f"{step.label} x {step.ratio.spread.median:.2f}" for step in found.steps if step.ratio
    )
    return Chart(
        f"{name}-waterfall",
        title,
        "what each change is worth",
        f"From {first.name} with {first.qps.median:.1f} to {last.name} with "
        f"{last.qps.median:.1f} images per second: {steps}.",
        lambda: _figure(found),
    )


def _figure(found: Waterfall) -> Figure:
    first, last = found.steps[0].row, found.steps[-1].row
    names = [
        f"{first.name}, {processes_text(first)}",
        *(f"+ {step.label} ({step.row.name})" for step in found.steps[1:]),
        f"{last.name}, {processes_text(last)}",
    ]
    if found.bound is not None:
        names.append(f"upper bound: {found.bound.name}{ran_in(found.bound)}")
    figure = Figure(figsize=(CHART_WIDTH_IN, 0.6 + 0.5 * len(names)), layout="constrained")
    axes = figure.subplots()
    rows_of_bars(axes, names)
    texts = [_whole_bar(axes, 0, first, _WHOLE, "")]
    for position, (before, step) in enumerate(pairwise(found.steps), 1):
        if step.ratio is not None:
            texts.append(_step_bar(axes, position, before.row, step, step.ratio))
    end = len(found.steps)
    texts.append(_whole_bar(axes, end, last, _WHOLE, f" ({factor(found.whole)} in all)"))
    if (bound := found.bound) is not None:
        share = 100 * last.qps.median / bound.qps.median
        reached = f" ({last.name} reaches {share:.0f} %)"
        texts.append(_whole_bar(axes, end + 1, bound, BOUND, reached))
    axes.set_xlabel("images per second; lines: 95 % intervals of the factors")
    fit_texts(figure, axes, texts)
    return figure


def _whole_bar(axes: Axes, position: int, row: Row, colour: str, text: str) -> BarText:
    qps = row.qps.median
    axes.barh(position, qps, _THICKNESS, color=colour, gid=MARK)
    on_bar = INK if colour == BOUND else ON_BAR
    return BarText(position, 0.0, qps, f"{qps:.1f}{text}", (0.0, qps), on_bar)


def _step_bar(axes: Axes, position: int, before: Row, step: Step, ratio: Ratio) -> BarText:
    """From the throughput before the change to the one with it."""
    start, end = before.qps.median, step.row.qps.median
    colour = (_GAIN if ratio.spread.median > 1 else _LOSS) if ratio.is_distinct else _CHANCE
    axes.barh(position, end - start, _THICKNESS, left=start, color=colour, gid=MARK)
    drawn = [start, end]
    low, high = ratio.interval.low, ratio.interval.high
    if low is not None and high is not None:
        # Of the factor: as wide as it is, beside the throughput that the table has.
        bounds = [end * bound / ratio.spread.median for bound in (low, high)]
        axes.plot(bounds, [position, position], color=INK, linewidth=1.2)
        axes.plot(bounds, [position, position], "|", color=INK, markersize=6)
        drawn += bounds
    for value, upper in ((start, position - 1), (end, position)):
        edges = [upper + _THICKNESS / 2, upper + 1 - _THICKNESS / 2]
        axes.plot([value, value], edges, color=FAINT, linewidth=0.8)
    text = factor(ratio) + _doubt(ratio)
    return BarText(position, min(drawn), max(drawn), text, (min(start, end), min(drawn[1:])))


def _doubt(ratio: Ratio) -> str:
    if ratio.is_distinct:
        return ""
    return ", one repeat" if ratio.interval.low is None else ", within chance"
