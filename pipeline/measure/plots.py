"""The plot of a run, as a PNG file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter, StrMethodFormatter

from pipeline.measure import summary
from pipeline.measure.sides import ANCHOR, OURS
from pipeline.measure.summary import Measured, Spread
from pipeline.measure.verdict import (
    LATE_P99_MS,
    OVERHEAD_CPU_US,
    TEN_CLIENTS_MEAN_BATCH,
    WAITING_CPU_S,
)

# Blue and orange of Okabe and Ito, told apart by everybody.
_COLOURS = {OURS: "#0072B2", ANCHOR: "#D55E00"}
_STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}
_WIDTH = 0.36
_OFFSETS = {OURS: -0.2, ANCHOR: 0.2}


def draw(folder: Path, run: Mapping[str, Any]) -> str:
    """Write the plot; the same data gives the same picture.

    Returns:
        Its file name.
    """
    name = f"{run['kind']}.png"
    with mpl.rc_context(_STYLE):
        figure = _FIGURES[run["kind"]](run)
        figure.savefig(folder / name, dpi=110, metadata={"Software": None})
    return name


def _batching(run: Mapping[str, Any]) -> Figure:
    figure = Figure(figsize=(11, 8), layout="constrained")
    (latency, batches), (late, cpu) = figure.subplots(2, 2)
    parts = run["parts"]
    clients = [part for part in parts if part["request"]["window"] == "closed_loop"]
    lone = [part for part in parts if part["request"]["window"] == "late_request"]
    waits = [part for part in parts if part["request"]["window"] == "waiting"]
    client_names = [str(part["request"]["clients"]) for part in clients]

    for position, side, found in _bars(run, clients):
        p50, p99 = found.percentile_ms(0.50), found.percentile_ms(0.99)
        latency.bar(position, p99, _WIDTH, color=_COLOURS[side], alpha=0.35)
        latency.bar(position, p50, _WIDTH, color=_COLOURS[side])
        _dots(latency, position, found.percentiles_ms(0.99))
        _value(latency, position, max(found.percentiles_ms(0.99)), f"{p99:.1f}")
        batches.bar(position, found.mean_batch, _WIDTH, color=_COLOURS[side])
        _value(batches, position, found.mean_batch, f"{found.mean_batch:.2f}")
    _name_ticks(latency, client_names, "closed-loop clients")
    latency.set_ylabel("latency in ms")
    latency.set_title("TP50 and, pale, TP99; dots are the repeats' TP99", fontsize=10)
    _name_ticks(batches, client_names, "closed-loop clients")
    batches.set_ylabel("items in a batch")
    batches.set_title("Mean batch", fontsize=10)
    _limit(batches, TEN_CLIENTS_MEAN_BATCH, "asked of 10 clients")

    for position, side, found in _bars(run, lone):
        p99 = found.percentile_ms(0.99)
        late.bar(position, p99, _WIDTH, color=_COLOURS[side])
        _value(late, position, p99, f"{p99:.1f}")
    _name_ticks(late, [str(part["request"]["busy"]) for part in lone], "instances at work, of 2")
    late.set_yscale("log")
    late.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    late.yaxis.set_major_formatter(ScalarFormatter())
    late.yaxis.set_minor_formatter(NullFormatter())
    late.set_ylim(5, 2 * late.get_ylim()[1])
    late.set_ylabel("TP99 in ms (logarithmic)")
    late.set_title("A lone late request", fontsize=10)
    _limit(late, LATE_P99_MS, f"{LATE_P99_MS:g} ms")

    for position, side, found in _bars(run, waits):
        if found.refused:
            _value(cpu, position, WAITING_CPU_S, "refused")
            continue
        cpu_s = Spread.of(found.cpu_s).median
        cpu.bar(position, cpu_s, _WIDTH, color=_COLOURS[side])
        _dots(cpu, position, found.cpu_s)
        _value(cpu, position, max(WAITING_CPU_S, *found.cpu_s), f"{cpu_s:.4f}")
    _name_ticks(cpu, [_wait_name(part["request"]) for part in waits], "what waits")
    cpu.set_ylabel(f"CPU-s in {run['settings']['wait_s']:g} s")
    cpu.set_title("CPU time while items wait; dots are repeats", fontsize=10)
    _limit(cpu, WAITING_CPU_S)
    for panel in (latency, batches, cpu):
        panel.set_ylim(0, 1.12 * panel.get_ylim()[1])
    _legend(figure, run)
    return figure


def _wait_name(request: Mapping[str, Any]) -> str:
    if request["hold_s"] is None:
        return f"{request['waiting_items']}, fewer\nthan min"
    return f"{request['waiting_items']}, behind\nan instance"


def _overhead(run: Mapping[str, Any]) -> Figure:
    figure = Figure(figsize=(9, 4.6), layout="constrained")
    cpu, wall = figure.subplots(1, 2)
    names = [part["name"].replace("chain-", "").replace("-", " ") for part in run["parts"]]
    for position, side, found in _bars(run, run["parts"]):
        for axes, values in ((cpu, found.cpu_us_an_item), (wall, found.wall_us_an_item)):
            spread = Spread.of(values)
            axes.bar(position, spread.median, _WIDTH, color=_COLOURS[side])
            _dots(axes, position, values)
            _value(axes, position, spread.high, f"{spread.median:.0f}")
    for axes, title in ((cpu, "CPU time"), (wall, "Wall time")):
        _name_ticks(axes, names, "items that a node takes at most")
        axes.set_ylabel("us an item")
        axes.set_title(f"{title}: median; dots are repeats", fontsize=10)
        axes.set_ylim(0, 1.12 * axes.get_ylim()[1])
    _limit(cpu, OVERHEAD_CPU_US, f"{OVERHEAD_CPU_US:g} us")
    _legend(figure, run)
    return figure


def _integrity(run: Mapping[str, Any]) -> Figure:
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axes = figure.subplots()
    samples = run["samples"]
    axes.plot(
        [sample["items"] for sample in samples],
        [sample["rss_bytes"] / 2**20 for sample in samples],
        color=_COLOURS[OURS],
        linewidth=1.4,
    )
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.set_xlabel("items done")
    axes.set_ylabel("memory of the process in MiB")
    axes.set_ylim(0, 1.15 * axes.get_ylim()[1])
    axes.set_title("Memory over the run", fontsize=11)
    return figure


def _bars(
    run: Mapping[str, Any], parts: Sequence[Mapping[str, Any]]
) -> list[tuple[float, str, Measured]]:
    """Position, side and windows of every bar of a panel."""
    return [
        (index + _OFFSETS[side], side, found)
        for index, part in enumerate(parts)
        for side in (OURS, ANCHOR)
        if (found := summary.measured(run, part["name"], side)) is not None
    ]


def _value(axes: Axes, position: float, height: float, text: str) -> None:
    axes.annotate(
        text,
        (position, height),
        xytext=(0, 4),
        textcoords="offset points",
        ha="center",
        fontsize=8,
    )


def _dots(axes: Axes, position: float, values: Sequence[float]) -> None:
    axes.plot([position] * len(values), values, "o", color="black", markersize=3, alpha=0.6)


def _limit(axes: Axes, value: float, text: str = "") -> None:
    axes.axhline(value, color="#888888", linewidth=0.8, linestyle=":")
    axes.annotate(
        text, (0.006, value), xycoords=("axes fraction", "data"), va="bottom", color="#666666"
    )


def _name_ticks(axes: Axes, names: Sequence[str], label: str) -> None:
    axes.set_xticks(range(len(names)), names)
    axes.set_xlim(-0.6, len(names) - 0.4)
    axes.set_xlabel(label)
    axes.grid(visible=False, axis="x")


def _legend(figure: Figure, run: Mapping[str, Any]) -> None:
    shown = summary.sides(run)
    handles = [Patch(color=_COLOURS[side]) for side in shown]
    labels = [f"{side} {run['versions'][side].get(side, '')}".strip() for side in shown]
    figure.legend(handles, labels, loc="outside upper center", ncols=2)


_FIGURES: Mapping[str, Callable[[Mapping[str, Any]], Figure]] = {
    "batching": _batching,
    "overhead": _overhead,
    "integrity": _integrity,
}
