"""The plot of a soak: throughput and memory over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from loadtest.report.style import PALETTE, picture

WARM_UP_SHARE = 0.1


def draw(
    folder: Path,
    windows: Sequence[tuple[float, float]],
    samples: Sequence[Mapping[str, float]],
    warm_up_s: float,
    growth_bytes_per_s: float,
) -> str:
    """Write the plot.

    Args:
        folder: where to.
        windows: start in seconds and images a second of each window.
        samples: what the server's processes held, with `at_s`.
        warm_up_s: what does not count.
        growth_bytes_per_s: of the line through the memory behind it.

    Returns:
        The file's name.
    """
    drawn = (windows, samples, warm_up_s, growth_bytes_per_s)
    return picture(folder, "soak.png", lambda: _panels(*drawn))


def _panels(
    windows: Sequence[tuple[float, float]],
    samples: Sequence[Mapping[str, float]],
    warm_up_s: float,
    growth_bytes_per_s: float,
) -> Figure:
    figure = Figure(figsize=(10, 6.4), layout="constrained")
    top, middle, bottom = figure.subplots(
        3, 1, sharex=True, gridspec_kw={"height_ratios": (3, 3, 2)}
    )
    top.plot(
        [start for start, _ in windows],
        [rate for _, rate in windows],
        ".",
        markersize=3,
        color=PALETTE[2],
    )
    top.set_ylabel("images a second")
    top.set_ylim(bottom=0)
    top.set_title("Soak: throughput, memory and handles of all server processes")
    times = [sample["at_s"] for sample in samples]
    rss_mib = [sample["rss_bytes"] / 2**20 for sample in samples]
    middle.plot(times, rss_mib, color=PALETTE[0], linewidth=1)
    middle.set_ylabel("resident memory, MiB")
    middle.annotate(
        f"{growth_bytes_per_s * 3600 / 2**20:+.1f} MiB an hour",
        (0.99, 0.06),
        xycoords="axes fraction",
        ha="right",
    )
    bottom.plot(times, [s["descriptors"] for s in samples], color=PALETTE[4], label="descriptors")
    bottom.plot(times, [s["threads"] for s in samples], "--", color=PALETTE[5], label="threads")
    bottom.set_ylim(bottom=0)
    bottom.set_ylabel("count")
    bottom.set_xlabel("seconds; grey: warm-up, which does not count")
    bottom.legend(loc="lower right", ncols=2)
    for axes in (top, middle, bottom):
        axes.axvspan(0, warm_up_s, color="#eeeeee", zorder=0)
        axes.margins(x=0.01)
    return figure
