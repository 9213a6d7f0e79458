"""The page of `peers`, from a made-up record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from loadtest.records import raw_files
from loadtest.records.run import TRIAL, Record, Run, Window
from loadtest.report import document as report
from loadtest.report.pages import PAGES

Repeats = Callable[..., Window]
Runs = Callable[..., Run]
NAMES = ["baseline-no-lock", "pipeline", "mosec-one-each", "mosec-batches-2", "ray-one-each"]


def _overload(repeat_of: Repeats, variant: str, number: int) -> Window:
    """Of 100 requests 50 are right, 10 of these too late; 30 are refused and 20 lost."""
    window = repeat_of(variant, number, [100.0] * 40 + [2000.0] * 10, 1.0)
    errors = ["RefusedError: HTTP 503: busy"] * 30 + ["timeout: timed out"] * 20
    lost = [Record(1.0, 1000.0, "photo-0.jpg", 1, error) for error in errors]
    records = [*window.records, *lost]
    return replace(window, records=records, clients=None, offered_per_s=100.0)


def _run(repeat_of: Repeats, run_of: Runs) -> Run:
    """mosec has 20 % more throughput with 1 client, ray a fifth of the TP99 with 10."""
    windows = [
        replace(repeat_of(name, TRIAL, [10.0] * n, 1.0), clients=10)
        for name, n in (("mosec-one-each", 90), ("mosec-batches-2", 100))
    ]
    counts = {
        1: {"baseline-no-lock": 90, "pipeline": 100, "mosec-batches-2": 120, "ray-one-each": 50},
        10: {"baseline-no-lock": 95, "pipeline": 200, "mosec-batches-2": 190, "ray-one-each": 100},
    }
    for clients, rates in counts.items():
        for number in range(1, 6):
            for name, n in rates.items():
                ms = 1000 * clients / (10 * n if name == "ray-one-each" and clients > 1 else n)
                window = repeat_of(name, number, [ms] * (10 * (n + number)), 10.0)
                windows.append(replace(window, clients=clients, client_processes=1))
    windows += [
        _overload(repeat_of, name, number)
        for number in range(1, 6)
        for name in ("pipeline", "mosec-batches-2")
    ]
    run = run_of(NAMES, windows)
    return replace(
        run,
        kind="peers",
        settings={
            **run.settings,
            "clients": [1, 10],
            "launch_prefix": [],
            "overload": 2.0,
            "deadline_ms": 1000.0,
            "queue_ms": 450,
        },
        results={
            "failures": [{"workload": "tiny", "variant": "litserve-x", "reason": "did not start"}],
            "kept": [{"workload": "tiny", "variant": "mosec-batches-2"}],
            "notes": [{"workload": "tiny", "variant": "ray-one-each", "note": "left a process"}],
        },
    )


def _cells(text: str, heading: str, *names: str) -> list[str]:
    """The cells of the row that begins with these, below a heading."""
    for line in text.split(heading)[1].splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[: len(names)] == [*names]:
            return cells[len(names) :]
    raise AssertionError(f"{heading} has no row {names}")


def test_the_page_says_where_each_peer_is_better(
    repeat_of: Repeats, run_of: Runs, tmp_path: Path
) -> None:
    raw_files.write(tmp_path, _run(repeat_of, run_of))
    report.build(tmp_path, PAGES)
    text = (tmp_path / report.REPORT_FILE).read_text()

    assert "`mosec-batches-2` is better than `pipeline` with 1 client (QPS 1.19 x" in text
    assert "`ray-one-each` is better than `pipeline` with 10 clients (TP99 0.20 x)" in text
    assert _cells(text, "### Beside the pipeline", "ray-one-each", "1")[0] == "0.51"
    assert _cells(text, "### Beside the pipeline", "ray-one-each", "1")[-1] == "-"
    # At 10 clients it is 1.05 times the best peer, which needs 1.03; at 1 only 0.84.
    verdicts = [
        line.split("|")[4].strip() for line in text.splitlines() if "best peer: QPS" in line
    ]
    assert verdicts == ["**FAIL**", "PASS"]

    goodput, *_ = _cells(text, "### Overload", "mosec-batches-2", "100.0")
    assert goodput.startswith("40.0")
    shares = _cells(text, "### Overload", "mosec-batches-2", "100.0")[3:6]
    assert shares == ["50.0 %", "30.0 %", "20.0 %"]

    assert _cells(text, "### Settings that were tried", "mosec-batches-2")[-1] == "yes"
    assert _cells(text, "### Settings that were tried", "mosec-one-each")[-1] == "-"
    assert "`litserve-x`: did not start" in text
    assert "`ray-one-each`: left a process" in text
    assert (tmp_path / "tiny-clients.png").stat().st_size > 1000
