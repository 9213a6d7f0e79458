"""`capacity`: the highest rate within a limit, with a real server, and what its page says."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import pytest

from loadtest.records import raw_files
from loadtest.records.run import Run, Window
from loadtest.records.service_level import holds, search_of
from loadtest.report.capacity_page import terminal
from loadtest.servers.server_process import ServerProcess

LoadTest = Callable[..., subprocess.CompletedProcess[str]]


def test_a_real_search_ends_and_its_report_is_made_of_the_raw_files(
    null_server: tuple[int, ServerProcess],
    loadtest: LoadTest,
    few_photographs: Path,
    tmp_path: Path,
) -> None:
    port, _ = null_server
    done = loadtest(
        *("capacity", "--port", port, "--img_dir", few_photographs, "--slo_ms", 50),
        *("--tries", 3, "--duration_s", 0.2, "--warmup_s", 0.1, "--request_client", 2),
        *("--output_dir", "out"),
    )
    assert done.returncode == 0, done.stderr
    run = raw_files.read(tmp_path / "out")
    closed, *opened = run.workloads[0].windows
    assert (closed.clients, closed.offered_per_s) == (2, None)
    assert len(opened) == 3
    assert all(window.records for window in opened)
    report = (tmp_path / "out" / "report.md").read_text()
    verdict = report.split("\n\n")[1]
    assert verdict.startswith("**`null` ")
    assert "with TP99 <= 50 ms**" in verdict
    assert verdict in done.stdout
    picture = cv2.imread(str(tmp_path / "out" / "tp99-over-rate.png"))
    assert picture is not None
    assert picture.std() > 5  # not a blank page
    done = loadtest("report", "out")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "report.md").read_text() == report


def test_an_interrupted_search_has_a_report_that_says_so(
    null_server: tuple[int, ServerProcess],
    start_loadtest: Callable[..., subprocess.Popen[str]],
    few_photographs: Path,
    tmp_path: Path,
) -> None:
    port, _ = null_server
    process = start_loadtest(
        *("capacity", "--port", port, "--img_dir", few_photographs, "--slo_ms", 50),
        *("--duration_s", 0.2, "--warmup_s", 0.1, "--request_client", 2, "--output_dir", "out"),
    )
    assert process.stderr is not None
    assert any("requests/s (poisson): " in line for line in process.stderr)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr.splitlines()[-1]) == (130, "loadtest: interrupted")
    assert not raw_files.read(tmp_path / "out").complete
    assert "**Partial**" in (tmp_path / "out" / "report.md").read_text()


@pytest.fixture
def searched(repeat_of: Callable[..., Window], run_of: Callable[..., Run]) -> Callable[..., Run]:
    """A search whose windows hold 10 ms up to a rate."""

    def make(highest: float, windows: int, failing: str = "", lag_ms: float = 0.2) -> Run:
        found = [replace(repeat_of("pipeline", 0, [5.0] * 100, 1.0), clients=10)]
        for number in range(1, windows + 1):
            rate = search_of(found, 10.0).next_value()
            window = repeat_of("pipeline", number, [8.0 if rate <= highest else 30.0] * 200, 2.0)
            records = [replace(record, lag_ms=lag_ms) for record in window.records]
            if failing and rate > highest:
                records[:3] = [replace(r, failed_images=1, error=failing) for r in records[:3]]
            found.append(replace(window, offered_per_s=rate, records=records))
        run = run_of(["pipeline"], found)
        settings = {**run.settings, "slo_ms": 10.0, "budget_s": 60.0, "arrivals": "poisson"}
        return replace(run, kind="capacity", settings=settings)

    return make


def test_the_interval_is_around_the_highest_rate(searched: Callable[..., Run]) -> None:
    run = searched(80.0, 45)
    found = search_of(run.workloads[0].windows, 10.0)
    interval = found.interval()
    assert interval.low is not None
    assert interval.high is not None
    assert interval.low <= 80.0 <= interval.high <= 1.05 * interval.low
    text = terminal(run)
    assert "**`pipeline` serves up to " in text
    assert "late by 0.20 ms" in text
    assert "The search ended" not in text


def test_few_windows_say_that_the_time_was_over(searched: Callable[..., Run]) -> None:
    assert "The search ended before the interval was as narrow as 5 %" in terminal(searched(80, 6))


def test_no_rate_within_the_limit_is_said(searched: Callable[..., Run]) -> None:
    text = terminal(searched(0.0, 12))
    assert "**`pipeline` holds TP99 <= 10 ms at no rate that was tried**" in text
    assert "had a TP99 of 30.00 ms" in text


def test_more_than_was_tried_is_said(searched: Callable[..., Run]) -> None:
    text = terminal(searched(1e9, 20))
    assert "holds TP99 <= 10 ms at all rates that were tried, up to " in text
    assert "no more than 8 times what clients that wait get is tried" in text


@pytest.mark.parametrize("windows", [1, 2, 3])
def test_no_rate_above_the_measured_ones_is_claimed(
    searched: Callable[..., Run], windows: int
) -> None:
    """Where each window held, the distribution beyond them is what was supposed before."""
    run = searched(1e9, windows)
    most = max(window.offered_per_s or 0.0 for window in run.workloads[0].windows)
    text = terminal(run)
    assert f"at all rates that were tried, up to {most:.4g} requests per second**" in text
    assert "serves up to" not in text


def test_a_wide_interval_has_no_middle(searched: Callable[..., Run]) -> None:
    """Two windows far apart: where between them the limit is reached was not measured."""
    run = searched(80.0, 2)
    held = [holds(window, 10.0) for window in run.workloads[0].windows[1:]]
    assert held == [True, False]
    text = terminal(run)
    assert "serves up to somewhere between " in text
    assert "the safe end, no window was measured." in text
    assert "every other one" not in text


def test_a_limit_of_the_load_generator_is_not_the_servers(searched: Callable[..., Run]) -> None:
    """Windows miss 10 ms with 30 ms, of which 25 are lag."""
    text = terminal(searched(80.0, 12, lag_ms=25.0))
    assert "windows that did not hold, nothing but the load generator's own lag was beyond" in text
    assert "nothing but the load generator" not in terminal(searched(80.0, 12))


def test_a_request_without_an_answer_took_for_ever(searched: Callable[..., Run]) -> None:
    """Two of 200 may miss the limit; the third one is beyond the hundredth part."""
    window = searched(0.0, 1, failing="Overloaded: full").workloads[0].windows[1]
    fast = [replace(record, latency_ms=1.0) for record in window.records]
    assert not holds(replace(window, records=fast), 10.0)
    fast[0] = replace(fast[0], failed_images=0, error="")
    fast[1] = replace(fast[1], failed_images=0, error="")
    assert holds(replace(window, records=fast), 10.0)
