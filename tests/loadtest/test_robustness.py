"""`fuzz`, `chaos` and `soak` through the real commands: real servers, sockets and dying processes.

What depends on the speed of the machine (throughput, memory, latencies) is left to the long runs.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loadtest.robustness import wire
from loadtest.robustness.promises import read_rows
from loadtest.robustness.server_under_test import ServerUnderTest

LoadTest = Callable[..., subprocess.CompletedProcess[str]]
TIMED = ("memory", "goodput", "TP99", "throughput", "threads", "descriptors")


def kept(folder: Path) -> dict[str, Any]:
    """The run's record, after a check of every promise that is none of speed."""
    run: dict[str, Any] = json.loads((folder / "run.json").read_text())
    promises = run["promises"]
    broken = [p for p in promises if not p["kept"] and not any(t in p["name"] for t in TIMED)]
    assert not broken, broken
    assert (folder / "report.md").read_text().count("PASS") >= len(promises) - len(TIMED)
    assert str(folder.parent) not in json.dumps(run)
    return run


def test_fuzz_sends_mutants_and_a_good_request_after_each_thousand(
    loadtest: LoadTest, port: int, tmp_path: Path
) -> None:
    """Two processes share the requests; nothing crashes, hangs or is labelled wrongly."""
    done = loadtest("fuzz", "--requests", 4000, "--port", port, "--output_dir", "out")
    assert done.returncode in (0, 1), done.stderr
    run = kept(tmp_path / "out")
    counts = run["counts"]
    assert counts["requests"] == 4000
    # One within and one at the end of each process's 2000.
    assert counts["good requests"] == 4
    for outcome in ("answered", "closed", "answered, closed", "an image's own error"):
        assert counts[outcome] > 0, counts
    assert not (tmp_path / "out" / "failures").exists()
    assert read_rows(tmp_path / "out" / "usage.csv.gz")
    assert run["command"].startswith("python -m loadtest fuzz")


def test_one_input_can_be_sent_again(loadtest: LoadTest, port: int, tmp_path: Path) -> None:
    """--replay sends a file's bytes to a fresh server and shows what comes back."""
    (tmp_path / "ping.bin").write_bytes(wire.frame(wire.call(b"ping", 7)))
    done = loadtest("fuzz", "--replay", "ping.bin", "--port", port)
    assert done.returncode == 0, done.stderr
    assert "sent 21 bytes" in done.stdout
    assert "left open; answer: b'\\x00" in done.stdout
    assert "ready: pipeline" in done.stdout


def test_chaos_leaves_every_request_answered(loadtest: LoadTest, port: int, tmp_path: Path) -> None:
    """Some phases, each as short as it can be; the others have tests of their own parts."""
    done = loadtest(
        *("chaos", "--duration_s", 5, "--model", "colours", "--clients", 4),
        *("--phases", "overload,flaky-engine,half-open"),
        *("--port", port, "--output_dir", "out"),
    )
    assert done.returncode in (0, 1), done.stderr
    run = kept(tmp_path / "out")
    outcomes = {phase["name"]: phase["outcomes"] for phase in run["phases"]}
    assert list(outcomes) == ["half-open", "flaky-engine", "overload"]
    assert all(counts["right"] > 0 and not counts.get("WRONG") for counts in outcomes.values())
    assert outcomes["flaky-engine"]["internal"] > 0
    assert outcomes["overload"]["overloaded"] > 0
    windows = read_rows(tmp_path / "out" / "overload.csv.gz")
    assert [row["window"] for row in windows] == ["capacity", "overload"] * 2
    assert "| flaky-engine | " in done.stdout


def test_soak_records_throughput_and_usage(loadtest: LoadTest, port: int, tmp_path: Path) -> None:
    """A short one: the files, the plot, and right answers throughout."""
    done = loadtest("soak", "--duration_s", 3, "--port", port, "--output_dir", "out")
    assert done.returncode in (0, 1), done.stderr
    run = kept(tmp_path / "out")
    assert run["outcomes"]["right"] > 0
    assert run["outcomes"]["bad image"] > 0
    assert run["throughput"]["first"] > 0
    folder = tmp_path / "out"
    assert (folder / "soak.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert len(read_rows(folder / "throughput.csv.gz")) >= 5


def test_a_server_that_does_not_start_is_told_with_its_last_line(port: int) -> None:
    """Not a time-out, and no waiting for one."""
    with (
        ServerUnderTest(["--handler", "nul"], port) as server,
        pytest.raises(Exception, match=r"not ready \(exit code 2\).*null"),
    ):
        server.wait_ready()


def test_unknown_phases_are_refused(loadtest: LoadTest) -> None:
    """With those that there are."""
    done = loadtest("chaos", "--phases", "overlod")
    assert done.returncode == 2
    assert "killed-worker" in done.stderr
    assert "overlod" in done.stderr
