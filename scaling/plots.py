"""The plots of results/scaling."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from loadtest.report.style import MUTED, PALETTE, picture
from scaling.study import LOADS
from scaling.study_tables import group, share
from scaling.validation import LATENCY_SHARE, RATE_SHARE, Comparison


def draw_validation(folder: Path, comparisons: Sequence[Comparison]) -> str:
    """Errors of every point, with the bounds.

    Returns:
        The file's name.
    """

    def figure() -> Figure:
        drawn = Figure(figsize=(11, 0.42 * len(comparisons) + 1.6), layout="constrained")
        axes = drawn.subplots(1, 3, sharey=True)
        titles = ("throughput", "TP50", "TP99")
        for k, (ax, title) in enumerate(zip(axes, titles, strict=True)):
            bound = 100 * (RATE_SHARE if k == 0 else LATENCY_SHARE)
            ax.axvspan(-bound, bound, color=PALETTE[4], alpha=0.15)
            ax.axvline(0, color=MUTED, linewidth=1)
            errors = [100 * it.errors[k] for it in comparisons]
            colours = [PALETTE[2] if abs(error) <= bound else PALETTE[0] for error in errors]
            ax.scatter(errors, range(len(errors)), color=colours, zorder=3)
            # A point far outside would squeeze the others; none is left out.
            ax.set_xlim(min(-1.6 * bound, 1.1 * min(errors)), max(1.6 * bound, 1.1 * max(errors)))
            ax.set_title(title)
            ax.set_xlabel("simulated over measured, %")
        axes[0].set_yticks(range(len(comparisons)), [it.title for it in comparisons])
        axes[0].invert_yaxis()
        return drawn

    return picture(folder, "validation.png", figure)


def draw_study(folder: Path, rows: Sequence[dict[str, Any]]) -> str:
    """Rules over load, reports, front ends and sizes of replicas.

    Returns:
        The file's name.
    """

    def figure() -> Figure:
        drawn = Figure(figsize=(12, 9), layout="constrained")
        (rules, reports), (fronts, sizes) = drawn.subplots(2, 2)
        _draw_rules(rules, rows)
        _draw_lines(
            reports,
            rows,
            "reports",
            lambda row: row["cluster"]["report_ms"],
            lambda row: row["cluster"]["rule"],
        )
        reports.set_title("a view of reports: TP99 over their distance")
        reports.set_xlabel("ms between two reports")
        _draw_lines(
            fronts,
            rows,
            "front ends",
            lambda row: row["cluster"]["front_ends"],
            lambda row: row["cluster"]["rule"],
        )
        fronts.set_title("own calls only: TP99 over front ends")
        fronts.set_xlabel("front ends")
        _draw_lines(
            sizes,
            rows,
            "sizes",
            lambda row: row["cluster"]["replica"]["instances"],
            lambda row: row["routing"],
        )
        sizes.set_title("1,000 instances: TP99 over the size of a replica")
        sizes.set_xlabel("instances of a replica")
        return drawn

    return picture(folder, "study.png", figure)


def _draw_rules(axes: Axes, rows: Sequence[dict[str, Any]]) -> None:
    found = group(rows, "rules")
    routings = list(dict.fromkeys(row["routing"] for row in found))
    for number, load in enumerate(LOADS):
        values = [
            next(
                row["row"]["tp99_ms"]
                for row in found
                if row["routing"] == routing and abs(share(row) - load) < 1e-6
            )
            for routing in routings
        ]
        places = [place + 0.25 * (number - 1) for place in range(len(routings))]
        axes.barh(places, values, height=0.23, color=PALETTE[number + 1], label=f"{100 * load:g} %")
    axes.set_yticks(range(len(routings)), routings)
    axes.invert_yaxis()
    axes.set_xlabel("TP99 ms")
    axes.set_title("1,000 replicas: TP99 of each rule, by load")
    axes.legend(title="load")


def _draw_lines(
    axes: Axes, rows: Sequence[dict[str, Any]], name: str, place: Any, line: Any
) -> None:
    found = group(rows, name)
    for number, label in enumerate(dict.fromkeys(map(line, found))):
        points = [(place(row), row["row"]["tp99_ms"]) for row in found if line(row) == label]
        axes.plot(*zip(*points, strict=True), marker="o", color=PALETTE[number], label=label)
    axes.set_xscale("log")
    axes.set_xticks(sorted({place(row) for row in found}))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    axes.set_ylabel("TP99 ms")
    axes.set_ylim(bottom=0)
    axes.legend()
