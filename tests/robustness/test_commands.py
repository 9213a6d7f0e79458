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

from loadtest.records.raw_files import read_table
from tests.robustness import wire
from tests.robustness.server_under_test import ServerUnderTest

Command = Callable[..., subprocess.CompletedProcess[str]]
TIMED = ("memory", "goodput", "TP99", "throughput", "threads", "descriptors")


def kept(folder: Path) -> dict[str, Any]:
    """The run's record, after a check of every promise that is none of speed."""
    run: dict[str, Any] = json.loads((folder / "run.json").read_text())
    checks = run["checks"]
    broken = [c for c in checks if not c["met"] and not any(t in c["name"] for t in TIMED)]
    assert not broken, broken
    assert (folder / "report.md").read_text().count("PASS") >= len(checks) - len(TIMED)
    assert str(folder.parent) not in json.dumps(run)
    return run


def test_fuzz_sends_mutants_and_a_good_request_after_each_thousand(
    robustness: Command, port: int, tmp_path: Path
) -> None:
    """Two processes share the requests; nothing crashes, hangs or is labelled wrongly."""
    done = robustness("fuzz", "--requests", 2010, "--port", port, "--output_dir", "out")
    assert done.returncode in (0, 1), done.stderr
    run = kept(tmp_path / "out")
    counts = run["results"]["counts"]
    assert counts["requests"] == 2010
    # One within and one at the end of each process's 1005.
    assert counts["good requests"] == 4
    for outcome in ("answered", "closed", "answered, closed", "an image's own error"):
        assert counts[outcome] > 0, counts
    assert not (tmp_path / "out" / "failures").exists()
    assert read_table(tmp_path / "out", "usage")
    assert run["command"].startswith("python -m tests.robustness fuzz")


def test_one_input_can_be_sent_again(robustness_here: Command, port: int, tmp_path: Path) -> None:
    """--replay sends a file's bytes to a fresh server and shows what comes back."""
    (tmp_path / "ping.bin").write_bytes(wire.frame(wire.call(b"ping", 7)))
    done = robustness_here("fuzz", "--replay", "ping.bin", "--port", port)
    assert done.returncode == 0, done.stderr
    assert "sent 21 bytes" in done.stdout
    assert "left open; answer: b'\\x00" in done.stdout
    assert "ready: pipeline" in done.stdout


def test_chaos_leaves_every_request_answered(
    robustness_here: Command, port: int, tmp_path: Path
) -> None:
    """Some phases, each as short as it can be; the others have tests of their own parts."""
    done = robustness_here(
        *("chaos", "--duration_s", 3, "--model", "colours", "--clients", 4),
        *("--phases", "overload,flaky-engine,half-open"),
        *("--port", port, "--output_dir", "out"),
    )
    assert done.returncode in (0, 1), done.stderr
    run = kept(tmp_path / "out")
    outcomes = {phase["name"]: phase["outcomes"] for phase in run["results"]["phases"]}
    assert list(outcomes) == ["half-open", "flaky-engine", "overload"]
    assert all(counts["right"] > 0 and not counts.get("WRONG") for counts in outcomes.values())
    assert outcomes["flaky-engine"]["internal"] > 0
    assert outcomes["overload"]["overloaded"] > 0
    windows = read_table(tmp_path / "out", "overload")
    assert [row["window"] for row in windows] == [
        *("capacity", "2 x capacity", "4 x capacity", "10 x capacity")
    ]
    assert "| flaky-engine | " in done.stdout


def test_soak_records_throughput_and_usage(
    robustness_here: Command, port: int, tmp_path: Path
) -> None:
    """A short one: the files, the plot, and right answers throughout."""
    done = robustness_here("soak", "--duration_s", 2, "--port", port, "--output_dir", "out")
    assert done.returncode in (0, 1), done.stderr
    run = kept(tmp_path / "out")
    assert run["results"]["outcomes"]["right"] > 0
    assert run["results"]["outcomes"]["bad image"] > 0
    assert run["results"]["throughput"]["first"] > 0
    folder = tmp_path / "out"
    assert (folder / "soak.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert len(read_table(folder, "throughput")) >= 5


def test_regression_alternates_this_checkout_and_another_commit(
    robustness_here: Command, port: int, tmp_path: Path
) -> None:
    done = robustness_here(
        *("regression", "--rows", "item,null", "--pairs", 2, "--duration_s", 0.1),
        *("--port", port, "--output_dir", "out"),
    )
    assert done.returncode in (0, 1), done.stderr
    pairs = read_table(tmp_path / "out", "pairs")
    assert [(row["row"], row["pair"]) for row in pairs] == [
        *(("item", "1"), ("item", "2"), ("null", "1"), ("null", "2"))
    ]
    assert all(float(row["this_per_s"]) > 0 and float(row["other_per_s"]) > 0 for row in pairs)
    assert "item: a second, over the other commit's" in done.stdout


def test_observing_measures_both_sides(robustness_here: Command, port: int, tmp_path: Path) -> None:
    done = robustness_here(
        *("observing", "--pairs", 2, "--requests", 20, "--port", port, "--output_dir", "out")
    )
    assert done.returncode in (0, 1), done.stderr
    pairs = read_table(tmp_path / "out", "pairs")
    assert len(pairs) == 2
    assert all(float(value) > 0 for row in pairs for value in row.values())
    assert "counting a request of one image by itself: CPU time" in done.stdout


def test_a_commit_that_is_none_is_one_line(robustness_here: Command) -> None:
    done = robustness_here("regression", "--against", "no-such-commit")
    assert done.returncode == 1
    assert "--against no-such-commit: " in done.stderr
    assert "Traceback" not in done.stderr


def test_too_short_a_soak_is_refused_before_it_starts(robustness_here: Command) -> None:
    done = robustness_here("soak", "--duration_s", 1.9)
    assert done.returncode == 1
    assert "--duration_s 1.9 is too short for soak" in done.stderr
    assert "at least 2 s" in done.stderr


def test_a_server_that_does_not_start_is_told_with_its_last_line(port: int) -> None:
    """Not a time-out, and no waiting for one."""
    with (
        ServerUnderTest(["--handler", "nul"], port) as server,
        pytest.raises(Exception, match=r"ended with exit code 2 before it was ready.*null"),
    ):
        server.wait_ready()


def test_unknown_phases_are_refused(robustness_here: Command) -> None:
    """With those that there are."""
    done = robustness_here("chaos", "--phases", "overlod")
    assert done.returncode == 2
    assert "killed-worker" in done.stderr
    assert "overlod" in done.stderr
