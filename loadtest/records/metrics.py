"""What is measured of processes and machine: one table for samples, raw files, tables and plots.

An entry says how a reading is taken, what a window's readings become, and where that is shown.
Readings of CPU time are counters that only grow, so that the mean over any window is a difference
of two readings and no peak between two samples is lost. None is "not available", never 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import psutil

from loadtest.records.probe import Probe, cpu_s, rss_bytes

NOT_AVAILABLE = "n/a"
Show = Callable[[Any, int], str]
Readings = Sequence[Any]


def number(value: float | None, digits: int = 1) -> str:
    """A number, or "n/a"."""
    return NOT_AVAILABLE if value is None else f"{value:.{digits}f}"


def percent(value: float | None, digits: int = 0) -> str:
    """A percentage, or "n/a"."""
    return NOT_AVAILABLE if value is None else f"{value:.{digits}f} %"


def percents(values: Sequence[float] | None) -> str:
    """A percentage of every GPU, or "n/a"."""
    return " / ".join(map(percent, values or ())) or NOT_AVAILABLE


def _growth(times_s: Sequence[float], readings: Readings, length_s: float) -> float:
    return 100 * rate_between(times_s, readings, 0.0, length_s)


def _mean(_: Sequence[float], readings: Readings, __: float) -> Any:
    """The mean; of readings of several GPUs that of each, None where there is none."""
    if isinstance(readings[0], list):
        return tuple(map(fmean, zip(*readings, strict=False))) or None
    return fmean(readings)


@dataclass(frozen=True)
class Metric:
    """How something is read, summed up over a window, and shown; one entry of `METRICS`.

    Attributes:
        name: of its readings in samples and raw files.
        usage: what a window's readings become: the name of that value.
        read: takes a reading.
        summarise: makes the value of a window's times, readings and length.
        columns: heading in the table of utilisation, and how the value is shown; it is told the
            machine's memory in bytes, too.
        of_server: True where it says nothing without a server.
        derived: makes the value of the usage so far, where it has no readings of its own.
        axis: label of its panel in the plot of utilisation, or "".
        top: where the panel's scale ends, in percent; None for what the readings need.
        plotted: a reading as it is plotted; None plots the growth of a counter in percent.
    """

    name: str
    usage: str
    read: Callable[[Probe], Any] | None
    summarise: Callable[[Sequence[float], Readings, float], Any] | None
    columns: Mapping[str, Show]
    of_server: bool = True
    derived: Callable[[Mapping[str, Any]], Any] | None = None
    axis: str = ""
    top: float | None = None
    plotted: Callable[[Any], float] | None = None


def _foreign(usage: Mapping[str, Any]) -> float | None:
    """CPU that nothing of the measurement used."""
    busy, *parts = (
        usage[name]
        for name in ("busy_percent", "server_cpu_percent", "clients_cpu_percent", "own_cpu_percent")
    )
    return None if busy is None or None in parts else max(0.0, busy - sum(parts))


def _show(digits: int) -> Show:
    return lambda value, _: percent(value, digits)


METRICS = (
    Metric(
        "gpu_percents",
        "gpu_percents",
        lambda probe: probe.gpus.utilisation_percents(),
        _mean,
        {"GPU": lambda values, _: percents(values)},
        axis="busiest GPU in %",
        top=100.0,
        plotted=lambda values: max(values, default=0.0),
    ),
    Metric(
        "gpu_memory_bytes",
        "gpu_memory_bytes",
        lambda probe: probe.gpus.memory_bytes(),
        _mean,
        {"GPU memory": lambda values, _: f"{sum(values) / 2**20:.0f} MiB"},
    ),
    Metric(
        "server_cpu_s",
        "server_cpu_percent",
        lambda probe: probe.of_server(cpu_s),
        _growth,
        {"CPU": _show(0)},
        axis="server CPU in %\n(100 % = one core)",
    ),
    Metric(
        "server_rss_bytes",
        "server_rss_bytes",
        lambda probe: probe.of_server(rss_bytes),
        _mean,
        {
            "memory": lambda value, memory_bytes: percent(100 * value / memory_bytes, 1),
            "memory MiB": lambda value, _: number(value / 2**20, 0),
        },
        axis="server memory\nin MiB",
        plotted=lambda value: float(value / 2**20),
    ),
    Metric(
        "clients_cpu_s",
        "clients_cpu_percent",
        lambda probe: None if probe.clients is None else sum(map(cpu_s, probe.clients)),
        _growth,
        {"client CPU": _show(1)},
    ),
    # The load test's own process, which samples and shows progress.
    Metric("own_cpu_s", "own_cpu_percent", lambda probe: cpu_s(probe.own), _growth, {}),
    Metric("machine_busy_s", "busy_percent", lambda probe: probe.machine_busy_s(), _growth, {}),
    Metric(
        "",
        "foreign_percent",
        None,
        None,
        {"foreign CPU": _show(1)},
        of_server=False,
        derived=_foreign,
    ),
    Metric(
        "machine_steal_s",
        "steal_percent",
        lambda probe: probe.machine_steal_s(),
        _growth,
        {"steal": _show(1)},
        of_server=False,
    ),
)


def _total(name: str, read: Callable[[psutil.Process], float]) -> Metric:
    return Metric(name, name, lambda probe: probe.of_server(read), _mean, {})


# What a server's process tree holds: none of it may grow without end.
HELD = (
    _total("rss_bytes", rss_bytes),
    _total("descriptors", lambda process: float(process.num_fds())),
    _total("threads", lambda process: float(process.num_threads())),
    _total("processes", lambda _: 1.0),
)


def window_usage(
    times_s: Sequence[float], values: Sequence[Mapping[str, Any]], length_s: float
) -> dict[str, Any]:
    """What the metrics were over the window [0, length_s].

    Returns:
        Usage name to value; None where a sample lacks the reading. 100 % CPU is one core.
    """
    usage: dict[str, Any] = {}
    for metric in METRICS:
        readings = [value.get(metric.name) for value in values]
        if metric.derived is not None:
            usage[metric.usage] = metric.derived(usage)
        elif metric.summarise is not None:
            known = len(readings) > 1 and None not in readings
            usage[metric.usage] = metric.summarise(times_s, readings, length_s) if known else None
    return usage


def mean_usage(usages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The mean over several windows; None where a window has no value."""
    means: dict[str, Any] = {}
    for name in usages[0]:
        values = [usage[name] for usage in usages]
        if None in values:
            means[name] = None
        elif isinstance(values[0], tuple):
            means[name] = tuple(map(fmean, zip(*values, strict=True)))
        else:
            means[name] = fmean(values)
    return means


def rate_between(
    times_s: Sequence[float], counters: Sequence[float], start_s: float, end_s: float
) -> float:
    """Mean growth per second of a counter between two times, linear between its readings.

    Raises:
        ValueError: fewer than two readings, or an empty span.
    """
    if len(times_s) < 2 or end_s <= start_s:
        raise ValueError("a rate needs two readings and a span of time")
    growth = _interpolate(times_s, counters, end_s) - _interpolate(times_s, counters, start_s)
    return growth / (end_s - start_s)


def _interpolate(times_s: Sequence[float], values: Sequence[float], at_s: float) -> float:
    index = next(
        (index for index in range(1, len(times_s)) if at_s <= times_s[index]), len(times_s) - 1
    )
    before, after = times_s[index - 1], times_s[index]
    share = min(1.0, max(0.0, (at_s - before) / (after - before)))
    return values[index - 1] + share * (values[index] - values[index - 1])
