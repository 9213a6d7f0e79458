"""The plots of runs on a cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from loadtest.report.style import PALETTE, picture

_BIN_S = 1.0


def draw_phases(
    folder: Path, phases: Sequence[Mapping[str, float]], right_s: Mapping[str, Sequence[float]]
) -> str:
    """Write the plot of right answers a second around each fault.

    Args:
        folder: where to.
        phases: as in run.json.
        right_s: when right answers came, by the name of the phase.

    Returns:
        The file's name.
    """
    return picture(folder, "phases.png", lambda: _phases(phases, right_s))


def _phases(
    phases: Sequence[Mapping[str, float]], right_s: Mapping[str, Sequence[float]]
) -> Figure:
    figure = Figure(figsize=(10, 1.6 + 1.5 * len(phases)), layout="constrained")
    panels = figure.subplots(len(phases), 1, squeeze=False)[:, 0]
    for axes, phase in zip(panels, phases, strict=True):
        times = right_s[str(phase["name"])]
        # The last second is a part of one.
        bins = [0] * max(1, int(max(times, default=0.0) / _BIN_S))
        for at_s in times:
            if (index := int(at_s / _BIN_S)) < len(bins):
                bins[index] += 1
        starts = [index * _BIN_S - phase["fault_s"] for index in range(len(bins))]
        axes.step(starts, bins, where="post", color=PALETTE[0])
        axes.axvline(0, color=PALETTE[1], linestyle="--", linewidth=1)
        over_s = phase["over_s"] - phase["fault_s"]
        if over_s:
            axes.axvline(over_s, color=PALETTE[1], linestyle=":", linewidth=1)
        if phase["back_s"]:
            axes.axvspan(over_s, over_s + phase["back_s"], color="#eeeeee", zorder=0)
        axes.axhline(phase["before_per_s"], color="#999999", linewidth=0.8)
        axes.set_ylim(bottom=0)
        axes.set_title(str(phase["name"]), loc="left", fontsize=10)
        axes.set_ylabel("right / s")
        axes.margins(x=0.01)
    panels[-1].set_xlabel(
        "seconds from the fault; dotted: what was away is back; grey: until the throughput was back"
    )
    return figure


def draw_scaling(folder: Path, windows: Sequence[tuple[int, float]], one_per_s: float) -> str:
    """Write the plot of images a second by replicas, beside so many times one replica's.

    Args:
        folder: where to.
        windows: replicas and images a second of each.
        one_per_s: of one replica, in the median.

    Returns:
        The file's name.
    """
    return picture(folder, "scaling.png", lambda: _scaling(windows, one_per_s))


def _scaling(windows: Sequence[tuple[int, float]], one_per_s: float) -> Figure:
    figure = Figure(figsize=(7, 4.4), layout="constrained")
    axes = figure.subplots()
    counts = sorted({replicas for replicas, _ in windows})
    linear = [count * one_per_s for count in counts]
    axes.plot(counts, linear, "--", color="#999999", label="so many times one replica")
    axes.plot(
        [replicas for replicas, _ in windows],
        [rate for _, rate in windows],
        "o",
        color=PALETTE[0],
        label="measured, window by window",
    )
    axes.set_xticks(counts)
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("replicas")
    axes.set_ylabel("images a second")
    axes.legend(loc="upper left")
    return figure
