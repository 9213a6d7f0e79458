"""Rows of the tables, from hand-made runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from loadtest.records.run import Record, Run, Window
from loadtest.report.findings import findings
from loadtest.report.marks import is_late_generator, is_noisy, is_off_littles_law, marks_of
from loadtest.report.row_text import first_errors, ran_in
from loadtest.report.summary import summarise
from loadtest.report.tables import factor_interval
from measurement.statistics import Interval

Repeats = Callable[..., Window]
Runs = Callable[..., Run]


def test_a_closed_loop_that_keeps_all_clients_busy_is_not_marked(
    repeat_of: Repeats, run_of: Runs
) -> None:
    """200 requests of 50 ms in 1 s need 10 clients."""
    run = run_of(["baseline"], [repeat_of("baseline", 1, [50.0] * 200, 1.0)], clients=10)
    row = summarise(run, run.workloads[0])[0]
    assert row.concurrency == pytest.approx(10.0)
    assert not is_off_littles_law(row)


@pytest.mark.parametrize(("latency_ms", "marked"), [(47.6, False), (47.4, True), (52.6, True)])
def test_a_row_off_littles_law_by_more_than_5_percent_is_marked(
    latency_ms: float, marked: bool, repeat_of: Repeats, run_of: Runs
) -> None:
    run = run_of(["baseline"], [repeat_of("baseline", 1, [latency_ms] * 200, 1.0)])
    row = summarise(run, run.workloads[0])[0]
    assert is_off_littles_law(row) is marked


def test_ratios_pair_the_same_repeat_whatever_the_order_of_measurement(
    repeat_of: Repeats, run_of: Runs
) -> None:
    """Repeat 1 runs at half the speed of repeat 2 for both; each ratio is still exactly 2."""
    run = run_of(
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
    assert marks_of(pipeline) == ["unstable", "off Little's law"]


def test_without_a_baseline_the_first_row_is_the_reference(
    repeat_of: Repeats, run_of: Runs
) -> None:
    names = ["pipeline-timeout-0", "pipeline-batch-4"]
    requests = {"pipeline-timeout-0": 100, "pipeline-batch-4": 97}
    repeats = [
        repeat_of(name, repeat, [10.0] * requests[name], 1.0) for repeat in (1, 2) for name in names
    ]
    run = run_of(names, repeats, clients=1)
    reference, other = summarise(run, run.workloads[0])
    assert reference.ratio is None
    assert other.reference == "pipeline-timeout-0"
    assert other.ratio is not None
    assert other.ratio.spread.median == pytest.approx(0.97)
    (sentence, *_) = findings([reference, other])
    assert "`pipeline-batch-4` serves 0.97 times" in sentence


def test_the_share_of_the_upper_bound_compares_medians(repeat_of: Repeats, run_of: Runs) -> None:
    bound = replace(repeat_of("in-process", 1, [1.0], 1.0), records=[], images_per_s=250.0)
    run = run_of(["pipeline", "in-process"], [repeat_of("pipeline", 1, [10.0] * 200, 1.0), bound])
    pipeline, in_process = summarise(run, run.workloads[0])
    assert pipeline.share_of_bound == pytest.approx(0.8)
    assert ran_in(in_process) == ""
    details = {"processes": 4, "threads": 1, "batch_size": 1}
    run.workloads[0].windows[1] = replace(bound, details=details)
    rows = summarise(run, run.workloads[0])
    assert "(`in-process`, in 4 processes of 1 thread)" in " ".join(findings(rows))
    assert in_process.requests == 0
    assert in_process.tp_ms(0.50) is None


def test_failed_images_count_as_errors_and_not_as_throughput(
    repeat_of: Repeats, run_of: Runs
) -> None:
    repeat = repeat_of("baseline", 1, [10.0] * 10, 1.0)
    repeat.records[3] = Record(0.4, 9999.0, "photo-0.jpg", 1, "InvalidImage: no")
    run = run_of(["baseline"], [repeat])
    row = summarise(run, run.workloads[0])[0]
    assert row.failed_images == 1
    assert first_errors(row) == [("InvalidImage: no", 1)]
    assert row.qps.median == pytest.approx(9.0)
    assert max(row.latencies_ms) == 10.0


def test_failures_that_differ_by_a_number_alone_are_told_as_one(
    repeat_of: Repeats, run_of: Runs
) -> None:
    repeat = repeat_of("baseline", 1, [10.0] * 10, 1.0)
    told = ["Overloaded: about 473 ms; 450 allowed", "Overloaded: about 466 ms; 450 allowed"]
    errors = [*told, "wrong label '3', alone it gets '4'", "wrong label '5', alone it gets '4'"]
    repeat.records[:4] = [Record(0.1, 1.0, "photo-0.jpg", 1, error) for error in errors]
    run = run_of(["baseline"], [repeat])
    row = summarise(run, run.workloads[0])[0]
    assert first_errors(row) == [(f"such as {told[0]}", 2), (errors[2], 1), (errors[3], 1)]


@pytest.mark.parametrize(("foreign_cores", "noisy"), [(0.09, False), (0.11, True)])
def test_foreign_load_above_a_tenth_of_a_core_marks_the_row(
    foreign_cores: float, noisy: bool, repeat_of: Repeats, run_of: Runs
) -> None:
    repeat = repeat_of("baseline", 1, [10.0] * 10, 1.0, foreign_cores=foreign_cores)
    run = run_of(["baseline"], [repeat])
    assert is_noisy(summarise(run, run.workloads[0])[0]) is noisy


def test_a_generator_that_sent_nothing_in_time_is_late(repeat_of: Repeats, run_of: Runs) -> None:
    window = replace(repeat_of("baseline", 1, [2000.0] * 10, 1.0), offered_per_s=10_000.0)
    window.records[:] = [
        replace(record, failed_images=1, error="not sent: too slow", lag_ms=record.latency_ms)
        for record in window.records
    ]
    run = run_of(["baseline"], [window])
    assert is_late_generator(summarise(run, run.workloads[0])[0])


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (1.04, 1.1, "[1.04, 1.10]"),
        (1.0004, 1.06, "[1.0004, 1.0600]"),
        (0.9, 0.998, "[0.900, 0.998]"),
        (0.999, 1.06, "[1.00, 1.06]"),
        (None, None, "n/a"),
    ],
)
def test_the_interval_of_a_factor_shows_on_which_side_of_1_it_lies(
    low: float | None, high: float | None, text: str
) -> None:
    assert factor_interval(Interval(low, high)) == text
