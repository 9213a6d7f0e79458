"""Whether the clients were the limit, from hand-made runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from loadtest.records.run import CLIENTS, Run, Window
from loadtest.report.generator import generator_findings, generator_table
from loadtest.report.marks import marks_of
from loadtest.report.summary import Row, summarise

Repeats = Callable[..., Window]
Runs = Callable[..., Run]
FEW, MANY = "null, 1 client process", "null, 2 client processes"


def _told(window: Window, processes: int, lag_ms: float = 0.1, **facts: object) -> Window:
    """The window of so many client processes."""
    records = [
        replace(record, worker=str(index % processes + 1), lag_ms=lag_ms)
        for index, record in enumerate(window.records)
    ]
    told = [
        {"worker": number, "host": 1, "clients": 5, "cpu_percent": 40.0, "lost": "", **facts}
        for number in range(1, processes + 1)
    ]
    return replace(window, records=records, details={CLIENTS: told}, client_processes=processes)


def _rows(windows: Sequence[Window], run_of: Runs) -> list[Row]:
    run = run_of(list(dict.fromkeys(window.variant for window in windows)), windows)
    return summarise(run, run.workloads[0])


def _marks(row: Row) -> set[str]:
    return {*marks_of(row)}


@pytest.fixture
def one(repeat_of: Repeats, run_of: Runs) -> Callable[..., Row]:
    """Makes the row of one window with two client processes."""

    def make(lag_ms: float = 0.1, **facts: object) -> Row:
        window = _told(repeat_of("null", 1, [50.0] * 200, 1.0), 2, lag_ms, **facts)
        (row,) = _rows([window], run_of)
        return row

    return make


def test_idle_clients_that_read_at_once_are_no_limit(one: Callable[..., Row]) -> None:
    row = one()
    answer, cpu, lag = generator_findings([row])
    assert answer.startswith("**Nothing hints at the clients as the limit**")
    assert "used 40 % of a core, where 80 % would be near its limit" in cpu
    assert "0.10 ms (TP99) of the latencies of `null`, whose TP99 is 50.00 ms" in lag
    assert not _marks(row) & {"busy client", "lost worker", "unsure clocks"}
    table = generator_table([row])
    assert table is not None
    assert [cells[1:5] for cells in table.rows] == [
        ["1", "1", "5", "100.0"],
        ["2", "1", "5", "100.0"],
    ]


def test_a_busy_or_late_client_may_be_the_limit(one: Callable[..., Row]) -> None:
    busy, late = one(cpu_percent=80.0), one(lag_ms=5.1)
    assert "busy client" in _marks(busy)
    for row in (busy, late):
        assert generator_findings([row])[0].startswith("**The clients may have been the limit**")
    told = generator_findings([late])[-1]
    assert told.endswith("That is more than a tenth. The latest is process 1, by 5.10 ms.")


def test_clocks_that_are_not_known_well_are_marked(one: Callable[..., Row]) -> None:
    """A hundredth of this window is 10 ms."""
    clock = {"clock_offset_ms": 3e5, "clock_within_ms": 4.0}
    good, bad = one(**clock, clock_drift_ms=-5.0), one(**clock, clock_drift_ms=6.5)
    assert "unsure clocks" not in _marks(good)
    assert "unsure clocks" in _marks(bad)
    assert "are known to 9.00 ms" in generator_findings([good])[-1]
    table = generator_table([good])
    assert table is not None
    assert table.rows[0][-1] == "+300000.00 ± 9.00"


def test_a_lost_worker_makes_it_invalid(one: Callable[..., Row]) -> None:
    row = one(lost="is silent")
    assert "lost worker" in _marks(row)
    found = generator_findings([row])
    assert len(found) == 2
    assert all(told.startswith("**Invalid**: worker ") for told in found)


@pytest.mark.parametrize(
    ("factors", "answer"),
    [
        ((1.0, 1.01, 0.99, 1.0), "**The server is the limit, and not the clients**: 2 client"),
        ((1.3, 1.31, 1.29, 1.3), "**The clients were the limit**: 2 client processes were served"),
        ((0.9, 0.91, 0.89, 0.9), "They share cores with it and take some from it."),
        ((0.7, 1.5, 1.0, 1.2), "**Nothing is proven**: 2 client processes were served 1.1"),
        ((1.0,), "one pair shows no spread"),
    ],
)
def test_twice_as_many_processes_decide(
    factors: Sequence[float], answer: str, repeat_of: Repeats, run_of: Runs
) -> None:
    windows = []
    for repeat, factor in enumerate(factors, 1):
        windows.append(_told(repeat_of(FEW, repeat, [50.0] * 1000, 5.0), 1))
        windows.append(_told(repeat_of(MANY, repeat, [50.0] * round(1000 * factor), 5.0), 2))
    assert answer in generator_findings(_rows(windows, run_of))[0]


@pytest.mark.parametrize(
    ("tail_ms", "answer"),
    [
        (30.0, "**The clients were a limit**: of the same rate, TP99 50.00 ms and 30.00 ms, lower"),
        (50.0, "**The clients were not the limit**: of the same rate, TP99 50.00 ms and 50.00 ms"),
    ],
)
def test_of_a_given_rate_the_tail_decides(
    tail_ms: float, answer: str, repeat_of: Repeats, run_of: Runs
) -> None:
    windows = [
        replace(
            _told(repeat_of(name, repeat, [last_ms] * 1000, 5.0), processes), offered_per_s=200.0
        )
        for repeat in (1, 2, 3)
        for name, processes, last_ms in ((FEW, 1, 50.0), (MANY, 2, tail_ms))
    ]
    assert generator_findings(_rows(windows, run_of))[0].startswith(answer)
