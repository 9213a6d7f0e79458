"""`batching`, `overhead` and `integrity`: their commands on our side, and their reports."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import cv2
import pytest

from interfaces.benchmark import LateRequest, WaitingResult, Window, WindowResult
from loadtest.errors import LoadTestError
from loadtest.records import raw_files
from loadtest.records.run import Run
from loadtest.report.document import REPORT_FILE, build
from loadtest.report.pages import PAGES
from loadtest.report.runtime_summary import bytes_an_item, runtime_checks
from loadtest.runtime.parts import OURS, REFERENCE, Part, batching_parts
from loadtest.runtime.sides import start_reference, take_turns

LoadTest = Callable[..., CompletedProcess[str]]


def test_sides_take_turns_and_the_order_turns_round() -> None:
    class Noted:
        def __init__(self, name: str) -> None:
            self.name = name

        def run(self, window: Window) -> WindowResult:
            assert isinstance(window, LateRequest)
            order.append((self.name, window.trials))
            return WaitingResult(0, 0, window.second_items, None)

    order: list[tuple[str, int]] = []
    window = LateRequest({}, busy=0, trials=9, model_s=0, late_after_s=0)
    part = Part("p", window, {"trials": 1}, {"b": {"second_items": 2}})
    windows = take_turns([part], [Noted("a"), Noted("b")], 2, lambda _: None)
    assert order == [
        *(("a", 1), ("b", 1)),
        *(("a", 9), ("b", 9)),
        *(("b", 9), ("a", 9)),
    ]
    assert windows[1].items() >= {"part": "p", "side": "b", "repeat": 0}.items()
    assert [window["batches_begun"] for window in windows] == [1, 2, 2, 1]


def test_overhead_without_torchpipe_measures_our_side_and_says_so(
    loadtest: LoadTest, tmp_path: Path
) -> None:
    """The reference's option has its old name, and its dashes, too."""
    done = loadtest(
        *("overhead", "--repeats", 1, "--duration-s", 0.05, "--output-dir", "out"),
        *("--anchor-python", tmp_path / "no-python"),
    )
    assert done.returncode == 0, done.stderr
    missing = "cannot start 'no-python': No such file or directory"
    assert missing in done.stderr
    run = raw_files.read(tmp_path / "out")
    assert run.results["reference_missing"].endswith(missing)
    assert [(window["part"], window["side"]) for window in run.results["windows"]] == [
        ("chain-max-1", OURS),
        ("chain-max-4", OURS),
    ]
    text = (tmp_path / "out" / REPORT_FILE).read_text(encoding="utf-8")
    assert f"**Without torchpipe**: {run.results['reference_missing']}" in text
    assert "**Only 1 repeat(s)**" in text
    assert re.search(r"torchpipe was not measured \| +n/a", text)
    assert str(tmp_path) not in (tmp_path / "out" / raw_files.RUN_FILE).read_text(encoding="utf-8")


def test_an_interpreter_without_torchpipe_is_one_line(tmp_path: Path) -> None:
    # Isolated and without site packages, this interpreter has nothing but its own library.
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n', encoding="utf-8")
    bare.chmod(0o755)
    with pytest.raises(LoadTestError, match=r"^torchpipe: No module named 'torchpipe'$"):
        start_reference(str(bare))


def test_a_side_that_dies_is_one_line(tmp_path: Path) -> None:
    dying = tmp_path / "python"
    dying.write_text("#!/bin/sh\necho the last words >&2\nexit 3\n", encoding="utf-8")
    dying.chmod(0o755)
    with pytest.raises(LoadTestError, match="exit code 3; its last line: the last words"):
        start_reference(str(dying))


def test_integrity_finds_nothing_wrong_with_the_runtime(loadtest: LoadTest, tmp_path: Path) -> None:
    done = loadtest(
        "integrity", "--items", 1500, "--sample_s", 0.02, "--clients", 4, "--output_dir", "out"
    )
    assert done.returncode == 0, done.stderr
    run = raw_files.read(tmp_path / "out")
    assert (run.results["items"], run.results["findings"]) == (1500, {})
    assert 0 < run.results["failed_on_purpose"] < 150
    assert run.results["samples"][-1]["items"] == 1500
    assert run.settings["clients"] == 4
    assert "none of 1500" in done.stdout
    assert cv2.imread(str(tmp_path / "out" / "integrity.png")) is not None


def _hand_made(kind: str, parts: list[dict[str, Any]], windows: list[dict[str, Any]]) -> Run:
    return Run(
        kind=kind,
        started="2026-01-01T00:00:00Z",
        command=f"python -m loadtest {kind}",
        machine={
            "cpu_model": "a processor",
            "cpu_cores_usable": 2,
            "memory_bytes": 2**34,
            "kernel": "Linux",
            "python": "3",
        },
        source={"commit": "0" * 40, "dirty": False},
        settings={"repeats": 5, "wait_s": 0.5},
        versions={OURS: {OURS: "1"}, REFERENCE: {REFERENCE: "2"}},
        results={"reference_missing": None, "parts": parts, "windows": windows},
    )


def _batching_run() -> Run:
    """Five repeats in which torchpipe is as it was seen once: 60 ms, 211 ms, and a busy core."""
    slow = {"clients-2": 60.7, "late-1-busy": 211.0, "late-2-busy": 210.0}
    parts = batching_parts(1.0, 1, 0.5)
    windows = []
    for repeat in range(5):
        for part in parts:
            for side in (OURS, REFERENCE):
                after_s = 0.1 * (len(windows) + 1)
                latency_ms = slow.get(part.name, 11.0) if side == REFERENCE else 10.5
                refused = side == REFERENCE and part.name == "wait-1-below-min"
                windows.append(
                    {
                        "part": part.name,
                        "side": side,
                        "repeat": repeat,
                        "items": 4,
                        "wall_s": 0.5,
                        "cpu_s": 0.4 if side == REFERENCE and "wait-2" in part.name else 0.001,
                        "batch_sizes": {"4": 9, "3": 1},
                        "latencies_ms": [latency_ms] * 4,
                        "batches_before": [[1]],
                        "batches_begun": 0,
                        "refused": "RuntimeError: too few" if refused else None,
                        "elapsed_s": 0.1,
                        "process_cpu_s": [after_s - 0.1, after_s],
                    }
                )
    return _hand_made("batching", [part.record() for part in parts], windows)


def test_the_report_of_batching_says_what_is_met(tmp_path: Path) -> None:
    raw_files.write(tmp_path, _batching_run())
    before = (tmp_path / raw_files.RUN_FILE).read_bytes()
    run = build(tmp_path, PAGES)
    assert "RuntimeError: too few" in PAGES["batching"].terminal(run)
    text = (tmp_path / REPORT_FILE).read_text(encoding="utf-8")
    assert text.count("| PASS |") + text.count("|    PASS |") == 9
    assert "FAIL" not in text
    assert "0.95 x torchpipe's [0.95, 0.95]" in text
    assert "Without torchpipe" not in text
    assert "![When batches leave](batching.png)" in text
    picture = (tmp_path / "batching.png").read_bytes()
    build(tmp_path, PAGES)
    assert (tmp_path / "batching.png").read_bytes() == picture
    assert (tmp_path / raw_files.RUN_FILE).read_bytes() == before


def test_a_folder_of_the_first_version_is_read(tmp_path: Path) -> None:
    """Its results stand beside the rest, and torchpipe is its anchor."""
    raw_files.write(tmp_path, run := _batching_run())
    document = json.loads((tmp_path / raw_files.RUN_FILE).read_text())
    results = document.pop("results")
    results["anchor_missing"] = results.pop("reference_missing")
    for name in ("images", "workloads", "checks", "complete"):
        del document[name]
    text = json.dumps({**document, **results, "schema_version": 1})
    (tmp_path / raw_files.RUN_FILE).write_text(text)
    found = build(tmp_path, PAGES)
    assert PAGES["batching"].terminal(found) == PAGES["batching"].terminal(run)


def test_what_is_not_met_is_told() -> None:
    run = _batching_run()
    for window in run.results["windows"]:
        window["side"] = {OURS: REFERENCE, REFERENCE: OURS}[window["side"]]
    answers = {check.name.split(":")[0]: check.met for check in runtime_checks(run)}
    assert not answers["2 clients"]
    assert not answers["a lone late request, 1 of 2 instances at work"]
    assert not answers["wait-2-behind-instance"]
    assert not answers["wait-1-below-min"]
    assert answers["wait-1-behind-instance"]


def test_overhead_is_compared_with_torchpipe(tmp_path: Path) -> None:
    part = {"name": "chain-max-1", "request": {"clients": 10, "document": {"a": {}, "b": {}}}}
    window = {"part": "chain-max-1", "items": 1000, "elapsed_s": 0.1, "process_cpu_s": [0, 0]}
    windows = [
        {**window, "side": side, "wall_s": wall_s, "cpu_s": 0.05}
        for side, wall_s in ((OURS, 0.04), (REFERENCE, 0.02), (REFERENCE, 0.02), (OURS, 0.05))
    ]
    run = _hand_made("overhead", [part], windows)
    cpu, wall = runtime_checks(run)
    assert (cpu.measured, cpu.met) == ("50.0 us", True)
    assert (wall.measured, wall.met) == ("2.25 x torchpipe's [2.00, 2.50]", False)
    raw_files.write(tmp_path, run)
    build(tmp_path, PAGES)
    assert cv2.imread(str(tmp_path / "overhead.png")) is not None


def test_memory_that_grows_is_found() -> None:
    samples = [{"items": 100 * n, "rss_bytes": 10_000 + 2000 * n} for n in range(20)]
    assert bytes_an_item(samples) == pytest.approx(20)
    assert bytes_an_item(samples[:2]) is None


def test_a_run_that_lacks_what_its_report_shows_is_one_line(tmp_path: Path) -> None:
    raw_files.write(tmp_path, replace(_batching_run(), results={"parts": []}))
    with pytest.raises(LoadTestError, match="damaged: KeyError: 'windows'"):
        build(tmp_path, PAGES)


def test_a_kind_of_run_that_is_not_reported_here_is_one_line(tmp_path: Path) -> None:
    raw_files.write(tmp_path, replace(_batching_run(), kind="soak"))
    with pytest.raises(LoadTestError, match="holds a run of 'soak'; this reports compare, "):
        build(tmp_path, PAGES)
