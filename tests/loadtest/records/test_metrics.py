"""The one table of metrics: what is sampled, what windows make of it, and where it is shown."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from loadtest.measure.sampling import Sampler
from loadtest.records.metrics import HELD, METRICS, percents, rate_between, window_usage
from loadtest.records.probe import Probe
from loadtest.records.run import Run, Sample, Window
from loadtest.report.summary import summarise
from loadtest.report.tables import usage_table


def test_what_the_table_names_is_sampled_and_shown(
    repeat_of: Callable[..., Window], run_of: Callable[..., Run]
) -> None:
    with Sampler(Probe(os.getpid())) as sampler, Sampler(Probe(os.getpid()), HELD) as held:
        values, held_values = sampler.sample().values, held.sample().values
    assert list(values) == [metric.name for metric in METRICS if metric.read is not None]
    assert held_values["descriptors"] > 2
    assert held_values["processes"] >= 1
    run = run_of(["baseline"], [repeat_of("baseline", 1, [10.0] * 100, 1.0)])
    header, _, row = usage_table(summarise(run, run.workloads[0]), 2**30).splitlines()
    headings = [heading for metric in METRICS for heading in metric.columns]
    assert [cell.strip() for cell in header.split("|")[2:-1]] == headings
    assert dict(zip(headings, row.replace(" ", "").split("|")[2:-1], strict=True)) == {
        "GPU": "n/a",
        "GPU memory": "n/a",
        "CPU": "100%",
        "memory": "50.0%",
        "memory MiB": "512",
        "client CPU": "10.0%",
        "foreign CPU": "0.0%",
        "steal": "0.0%",
    }


def test_a_rate_covers_exactly_the_span_between_readings() -> None:
    """The counter grows by 2/s until 1 s and by 4/s after it; the span ends between readings."""
    times, counters = [0.0, 1.0, 2.0], [10.0, 12.0, 16.0]
    assert rate_between(times, counters, 0.0, 2.0) == pytest.approx(3.0)
    assert rate_between(times, counters, 0.0, 1.5) == pytest.approx(4 / 1.5)
    with pytest.raises(ValueError, match="two readings"):
        rate_between([0.0], [1.0], 0.0, 1.0)


def _usage(samples: list[Sample], length_s: float = 1.0) -> dict[str, Any]:
    return window_usage([s.at_s for s in samples], [s.values for s in samples], length_s)


def test_usage_is_the_mean_over_the_window_alone(samples: Callable[..., list[Sample]]) -> None:
    """The last sample lies behind the window's end."""
    usage = _usage(samples(2.0, server_cores=1.5, foreign_cores=0.25))
    assert usage["server_cpu_percent"] == pytest.approx(150.0)
    assert usage["foreign_percent"] == pytest.approx(25.0)
    assert usage["clients_cpu_percent"] == pytest.approx(10.0)
    assert usage["steal_percent"] == 0.0
    assert usage["server_rss_bytes"] == 512 * 2**20


def test_what_cannot_be_measured_is_none_and_not_zero(samples: Callable[..., list[Sample]]) -> None:
    unseen = {"server_cpu_s": None, "server_rss_bytes": None}
    usage = _usage([Sample(s.at_s, {**s.values, **unseen}) for s in samples(1.0)])
    assert usage["server_cpu_percent"] is None
    assert usage["server_rss_bytes"] is None
    assert usage["foreign_percent"] is None
    assert (usage["gpu_percents"], usage["gpu_memory_bytes"]) == (None, None)


def test_every_gpu_is_told_and_their_memory_is_summed(samples: Callable[..., list[Sample]]) -> None:
    gpus = {"gpu_percents": [10.0, 90.0], "gpu_memory_bytes": [100, 4000]}
    usage = _usage([Sample(s.at_s, {**s.values, **gpus}) for s in samples(1.0)])
    assert (usage["gpu_percents"], usage["gpu_memory_bytes"]) == ((10, 90), (100, 4000))
    assert percents(usage["gpu_percents"]) == "10 % / 90 %"
    (metric,) = [metric for metric in METRICS if metric.usage == "gpu_memory_bytes"]
    assert metric.columns["GPU memory"]((2**20, 3 * 2**20), 2**30) == "4 MiB"
