"""The plot of a run of the runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import StrMethodFormatter

from loadtest.records.run import Run
from loadtest.report.runtime_summary import (
    LATE_P99_MS,
    OVERHEAD_CPU_US,
    TEN_CLIENTS_MEAN_BATCH,
    WAITING_CPU_S,
    SideWindows,
    sides,
    windows_of,
)
from loadtest.report.style import (
    PALETTE,
    draw_dots,
    draw_limit,
    name_ticks,
    picture,
    scale_logarithmically,
    write_value,
)
from loadtest.runtime.parts import OURS, REFERENCE
from measurement.statistics import Spread

_COLOURS = {OURS: PALETTE[2], REFERENCE: PALETTE[0]}
_WIDTH = 0.36
_OFFSETS = {OURS: -0.2, REFERENCE: 0.2}


def draw(folder: Path, run: Run) -> str:
    """Write the plot.

    Returns:
        Its file name.
    """
    return picture(folder, f"{run.kind}.png", lambda: _FIGURES[run.kind](run))


def _batching(run: Run) -> Figure:
    figure = Figure(figsize=(11, 8), layout="constrained")
    (latency, batches), (late, cpu) = figure.subplots(2, 2)
    clients, lone, waits = (
        [part for part in run.results["parts"] if part["request"]["window"] == window]
        for window in ("closed_loop", "late_request", "waiting")
    )
    client_names = [str(part["request"]["clients"]) for part in clients]

    for position, side, found in _bars(run, clients):
        p50, p99 = found.tp_ms(0.50), found.tp_ms(0.99)
        latency.bar(position, p99, _WIDTH, color=_COLOURS[side], alpha=0.35)
        latency.bar(position, p50, _WIDTH, color=_COLOURS[side])
        draw_dots(latency, position, found.tps_ms(0.99))
        write_value(latency, position, found.tp_spread(0.99).high, f"{p99:.1f}", 8)
        batches.bar(position, found.mean_batch, _WIDTH, color=_COLOURS[side])
        write_value(batches, position, found.mean_batch, f"{found.mean_batch:.2f}", 8)
    _name(latency, client_names, "closed-loop clients")
    latency.set_ylabel("latency in ms")
    latency.set_title("TP50 and, pale, TP99; dots are the repeats' TP99", fontsize=10)
    _name(batches, client_names, "closed-loop clients")
    batches.set_ylabel("items in a batch")
    batches.set_title("Mean batch", fontsize=10)
    draw_limit(batches, TEN_CLIENTS_MEAN_BATCH, "asked of 10 clients")

    for position, side, found in _bars(run, lone):
        p99 = found.tp_ms(0.99)
        late.bar(position, p99, _WIDTH, color=_COLOURS[side])
        write_value(late, position, p99, f"{p99:.1f}", 8)
    _name(late, [str(part["request"]["busy"]) for part in lone], "instances at work, of 2")
    scale_logarithmically(late)
    late.set_ylim(5, 2 * late.get_ylim()[1])
    late.set_ylabel("TP99 in ms (logarithmic)")
    late.set_title("A lone late request", fontsize=10)
    draw_limit(late, LATE_P99_MS, f"{LATE_P99_MS:g} ms")

    for position, side, found in _bars(run, waits):
        if found.refused:
            write_value(cpu, position, WAITING_CPU_S, "refused", 8)
            continue
        values = found.each("cpu_s")
        cpu_s = Spread.of(values).median
        cpu.bar(position, cpu_s, _WIDTH, color=_COLOURS[side])
        draw_dots(cpu, position, values)
        write_value(cpu, position, max(WAITING_CPU_S, *values), f"{cpu_s:.4f}", 8)
    _name(cpu, [_wait_name(part["request"]) for part in waits], "what waits")
    cpu.set_ylabel(f"CPU-s in {run.settings['wait_s']:g} s")
    cpu.set_title("CPU time while items wait; dots are repeats", fontsize=10)
    draw_limit(cpu, WAITING_CPU_S)
    for panel in (latency, batches, cpu):
        panel.set_ylim(0, 1.12 * panel.get_ylim()[1])
    _legend(figure, run)
    return figure


def _wait_name(request: Mapping[str, Any]) -> str:
    if request["hold_s"] is None:
        return f"{request['waiting_items']}, fewer\nthan min"
    return f"{request['waiting_items']}, behind\nan instance"


def _overhead(run: Run) -> Figure:
    figure = Figure(figsize=(9, 4.6), layout="constrained")
    cpu, wall = figure.subplots(1, 2)
    parts = run.results["parts"]
    names = [part["name"].replace("chain-", "").replace("-", " ") for part in parts]
    for axes, time, title in ((cpu, "cpu_s", "CPU time"), (wall, "wall_s", "Wall time")):
        for position, side, found in _bars(run, parts):
            values = found.us_an_item(time)
            spread = Spread.of(values)
            axes.bar(position, spread.median, _WIDTH, color=_COLOURS[side])
            draw_dots(axes, position, values)
            write_value(axes, position, spread.high, f"{spread.median:.0f}", 8)
        _name(axes, names, "items that a node takes at most")
        axes.set_ylabel("us an item")
        axes.set_title(f"{title}: median; dots are repeats", fontsize=10)
        axes.set_ylim(0, 1.12 * axes.get_ylim()[1])
    draw_limit(cpu, OVERHEAD_CPU_US, f"{OVERHEAD_CPU_US:g} us")
    _legend(figure, run)
    return figure


def _integrity(run: Run) -> Figure:
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axes = figure.subplots()
    samples = run.results["samples"]
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


def _bars(run: Run, parts: Sequence[Mapping[str, Any]]) -> list[tuple[float, str, SideWindows]]:
    """Position, side and windows of every bar of a panel."""
    return [
        (index + _OFFSETS[side], side, found)
        for index, part in enumerate(parts)
        for side in (OURS, REFERENCE)
        if (found := windows_of(run, part["name"], side)) is not None
    ]


def _name(axes: Axes, names: Sequence[str], label: str) -> None:
    name_ticks(axes, names)
    axes.set_xlim(-0.6, len(names) - 0.4)
    axes.set_xlabel(label)


def _legend(figure: Figure, run: Run) -> None:
    shown = sides(run)
    handles = [Patch(color=_COLOURS[side]) for side in shown]
    labels = [f"{side} {run.versions[side].get(side, '')}".strip() for side in shown]
    figure.legend(handles, labels, loc="outside upper center", ncols=2)


_FIGURES: Mapping[str, Callable[[Run], Figure]] = {
    "batching": _batching,
    "overhead": _overhead,
    "integrity": _integrity,
}
