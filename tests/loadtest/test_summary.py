"""Rows of the tables, from hand-made runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from loadtest.gpu import GpuReading
from loadtest.measured_run import MeasuredRun, Record, Repeat, Sample
from loadtest.summary import summarise, window_usage
from loadtest.tables import gpu_percents
from loadtest.verdict import verdict

Repeats = Callable[..., Repeat]
Runs = Callable[..., MeasuredRun]


def test_a_closed_loop_that_keeps_all_clients_busy_is_not_marked(
    repeat_of: Repeats, measured_run: Runs
) -> None:
    """200 requests of 50 ms in 1 s need 10 clients."""
    run = measured_run(["baseline"], [repeat_of("baseline", 1, [50.0] * 200, 1.0)], clients=10)
    row = summarise(run, run.workloads[0])[0]
    assert row.concurrency == pytest.approx(10.0)
    assert not row.little_mismatch(10)


@pytest.mark.parametrize(("latency_ms", "marked"), [(47.6, False), (47.4, True), (52.6, True)])
def test_a_row_off_littles_law_by_more_than_5_percent_is_marked(
    latency_ms: float, marked: bool, repeat_of: Repeats, measured_run: Runs
) -> None:
    run = measured_run(["baseline"], [repeat_of("baseline", 1, [latency_ms] * 200, 1.0)])
    row = summarise(run, run.workloads[0])[0]
    assert row.little_mismatch(10) is marked


def test_ratios_pair_the_same_repeat_whatever_the_order_of_measurement(
    repeat_of: Repeats, measured_run: Runs
) -> None:
    """Repeat 1 runs at half the speed of repeat 2 for both; each ratio is still exactly 2."""
    run = measured_run(
        ["baseline", "pipeline"],
        [
            repeat_of("baseline", 1, [10.0] * 50, 1.0),
            repeat_of("pipeline", 1, [10.0] * 100, 1.0),
            repeat_of("pipeline", 2, [10.0] * 200, 1.0),
            repeat_of("baseline", 2, [10.0] * 100, 1.0),
        ],
    )
    baseline, pipeline = summarise(run, run.workloads[0])
    assert baseline.ratio is None
    assert pipeline.ratio is not None
    assert (pipeline.ratio.spread.low, pipeline.ratio.spread.high) == (2.0, 2.0)
    assert not pipeline.is_stable


def test_without_a_baseline_the_first_row_is_the_reference(
    repeat_of: Repeats, measured_run: Runs
) -> None:
    names = ["pipeline-timeout-0", "pipeline-batch-4"]
    requests = {"pipeline-timeout-0": 100, "pipeline-batch-4": 97}
    repeats = [
        repeat_of(name, repeat, [10.0] * requests[name], 1.0) for repeat in (1, 2) for name in names
    ]
    run = measured_run(names, repeats, clients=1)
    reference, other = summarise(run, run.workloads[0])
    assert reference.ratio is None
    assert other.reference == "pipeline-timeout-0"
    assert other.ratio is not None
    assert other.ratio.spread.median == pytest.approx(0.97)
    (sentence, *_) = verdict([reference, other], clients=1)
    assert "`pipeline-batch-4` serves 0.97 times" in sentence


def test_the_share_of_the_in_process_limit_compares_medians(
    repeat_of: Repeats, measured_run: Runs
) -> None:
    limit = replace(repeat_of("in-process", 1, [1.0], 1.0), records=[], images_per_s=250.0)
    run = measured_run(
        ["pipeline", "in-process"], [repeat_of("pipeline", 1, [10.0] * 200, 1.0), limit]
    )
    pipeline, in_process = summarise(run, run.workloads[0])
    assert pipeline.share_of_limit == pytest.approx(0.8)
    assert in_process.requests == 0
    assert in_process.tp50_ms is None


def test_failed_images_count_as_errors_and_not_as_throughput(
    repeat_of: Repeats, measured_run: Runs
) -> None:
    repeat = repeat_of("baseline", 1, [10.0] * 10, 1.0)
    repeat.records[3] = Record(0.4, 9999.0, "photo-0.jpg", 1, "InvalidImage: no")
    run = measured_run(["baseline"], [repeat])
    row = summarise(run, run.workloads[0])[0]
    assert row.failed_images == 1
    assert row.first_errors == [("InvalidImage: no", 1)]
    assert row.qps.median == pytest.approx(9.0)
    assert max(row.latencies_ms) == 10.0


@pytest.mark.parametrize(("foreign_cores", "noisy"), [(0.09, False), (0.11, True)])
def test_foreign_load_above_a_tenth_of_a_core_marks_the_row(
    foreign_cores: float, noisy: bool, repeat_of: Repeats, measured_run: Runs
) -> None:
    repeat = repeat_of("baseline", 1, [10.0] * 10, 1.0, foreign_cores=foreign_cores)
    run = measured_run(["baseline"], [repeat])
    assert summarise(run, run.workloads[0])[0].is_noisy is noisy


def test_usage_is_the_mean_over_the_window_alone(samples: Callable[..., list[Sample]]) -> None:
    """The last sample lies behind the window's end."""
    usage = window_usage(samples(2.0, server_cores=1.5, foreign_cores=0.25), 1.0)
    assert usage.server_cpu_percent == pytest.approx(150.0)
    assert usage.foreign_percent == pytest.approx(25.0)
    assert usage.clients_cpu_percent == pytest.approx(10.0)
    assert usage.steal_percent == 0.0
    assert usage.server_rss_bytes == 512 * 2**20


def test_what_cannot_be_measured_is_none_and_not_zero(samples: Callable[..., list[Sample]]) -> None:
    unseen = [replace(s, server_cpu_s=None, server_rss_bytes=None) for s in samples(1.0)]
    usage = window_usage(unseen, 1.0)
    assert usage.server_cpu_percent is None
    assert usage.server_rss_bytes is None
    assert usage.foreign_percent is None
    assert (usage.gpu_percents, usage.gpu_memory_bytes) == ((), None)


def test_every_gpu_is_told_and_their_memory_is_summed(samples: Callable[..., list[Sample]]) -> None:
    gpus = [GpuReading(10.0, 100), GpuReading(90.0, 4000)]
    usage = window_usage([replace(s, gpus=gpus) for s in samples(1.0)], 1.0)
    assert (usage.gpu_percents, usage.gpu_memory_bytes) == ((10.0, 90.0), 4100)
    assert gpu_percents(usage.gpu_percents) == "10 % / 90 %"
