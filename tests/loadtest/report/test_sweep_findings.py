"""The sentences of a sweep: which variant serves most within the limit, and by what factor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from loadtest.records.run import Run, Window
from loadtest.report.summary import Row, sweep_rows
from loadtest.report.sweep_findings import best_rows, sweep_findings

Rows = Callable[[dict[tuple[str, int], tuple[int, float]]], list[Row]]


@pytest.fixture
def rows(repeat_of: Callable[..., Window], run_of: Callable[..., Run]) -> Rows:
    """Rows of (variant, clients) to (requests a second, latency in ms), in three repeats."""

    def make(points: dict[tuple[str, int], tuple[int, float]]) -> list[Row]:
        windows = [
            replace(
                repeat_of(variant, number, [ms] * (rate + number), 1.0),
                clients=clients,
                client_processes=1,
            )
            for number in (1, 2, 3)
            for (variant, clients), (rate, ms) in points.items()
        ]
        run = run_of(list(dict.fromkeys(name for name, _ in points)), windows)
        return sweep_rows(run, run.workloads[0])

    return make


def test_the_factor_is_between_the_best_points_within_the_limit(rows: Rows) -> None:
    found = rows(
        {
            ("baseline", 1): (100, 10.0),
            ("baseline", 4): (120, 33.0),
            ("pipeline", 1): (110, 9.0),
            ("pipeline", 4): (200, 14.0),
            ("pipeline", 8): (210, 38.0),
        }
    )
    assert {name: row.clients for name, row in best_rows(found, 15.0).items()} == {
        "baseline": 1,
        "pipeline": 4,
    }
    verdict, *further = sweep_findings(found, 15.0)
    assert verdict.startswith(
        "**`pipeline` serves the most with TP99 <= 15 ms: 202.0 images per second with 4 clients "
        "(TP99 14.00 ms)**, which is 1.98 times what is served by `baseline` at its best "
        "(102.0 with 1 client; 3 paired repeats, 95 % interval [1.9"
    )
    assert further == [
        "`baseline`: at most 122.0 images per second, with 4 clients (TP99 33.00 ms).",
        "`pipeline`: at most 212.0 images per second, with 8 clients (TP99 38.00 ms).",
    ]


def test_a_variant_beyond_the_limit_everywhere_is_told_with_its_least_tp99(rows: Rows) -> None:
    found = rows({("baseline", 1): (30, 33.0), ("pipeline", 1): (100, 9.0)})
    verdict, other, *_ = sweep_findings(found, 15.0)
    assert verdict.endswith("102.0 images per second with 1 client (TP99 9.00 ms)**.")
    assert other == (
        "`baseline` has no point within the limit; the least TP99 is 33.00 ms "
        "(`baseline` with 1 client)."
    )


def test_one_that_was_measured_alone_is_not_the_best_of_several(rows: Rows) -> None:
    found = rows({("pipeline", 1): (100, 9.0), ("pipeline", 2): (140, 12.0)})
    assert sweep_findings(found, 15.0)[0] == (
        "**`pipeline` serves at its best with TP99 <= 15 ms: 142.0 images per second with "
        "2 clients (TP99 12.00 ms)**; it was measured alone."
    )


def test_no_point_within_the_limit_is_no_verdict(rows: Rows) -> None:
    found = rows({("baseline", 1): (30, 33.0), ("pipeline", 1): (100, 29.0)})
    assert sweep_findings(found, 15.0)[0] == (
        "No variant has a point with TP99 <= 15 ms and every image right; "
        "the least TP99 is 29.00 ms (`pipeline` with 1 client)."
    )


def test_a_difference_within_chance_is_said(
    repeat_of: Callable[..., Window], run_of: Callable[..., Run]
) -> None:
    rates = {"baseline": (100, 130, 90), "pipeline": (110, 100, 120)}
    windows = [
        replace(repeat_of(name, number, [5.0] * rate, 1.0), clients=1, client_processes=1)
        for name, listed in rates.items()
        for number, rate in enumerate(listed, 1)
    ]
    run = run_of(list(rates), windows)
    verdict = sweep_findings(sweep_rows(run, run.workloads[0]), 15.0)[0]
    assert verdict.startswith("**It is not proven which serves the most with TP99 <= 15 ms**: ")
    assert verdict.endswith(": no difference beyond chance.")
