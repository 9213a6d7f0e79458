"""`report diff A B`, and the commands of reports as they are typed."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from loadtest.errors import BelowLimitError, LoadTestError
from loadtest.records import raw_files
from loadtest.records.run import Run, Window
from loadtest.report.difference import difference
from loadtest.report.required_gain import require_gain

LoadTest = Callable[..., subprocess.CompletedProcess[str]]
Measure = Callable[..., Run]


@pytest.fixture
def measured(repeat_of: Callable[..., Window], run_of: Callable[..., Run]) -> Measure:
    """Makes a run: each variant answers that many requests a second, a little more each time."""

    def run(rates: dict[str, int], repeats: int = 5, latency_ms: float = 10.0) -> Run:
        windows = [
            repeat_of(name, number, [latency_ms] * (rate + number), 1.0)
            for number in range(1, repeats + 1)
            for name, rate in rates.items()
        ]
        return run_of(list(rates), windows)

    return run


def _difference(tmp_path: Path, before: Run, after: Run) -> str:
    folders = [tmp_path / "before", tmp_path / "after"]
    for folder, run in zip(folders, (before, after), strict=True):
        raw_files.write(folder, run)
    return difference(*folders)


def test_what_moved_beyond_noise_is_told_and_what_did_not_is_too(
    measured: Measure, tmp_path: Path
) -> None:
    text = _difference(
        tmp_path,
        measured({"baseline": 1000, "pipeline": 1500}),
        measured({"baseline": 1001, "pipeline": 1650}, latency_ms=11.0),
    )
    assert "- `pipeline`: 10.0 % more images per second (1.100 times [1.0" in text
    assert "its ratio to `baseline` is 1.099 times what it was" in text
    assert "a higher TP99 (10.0 to 11.0 ms)" in text
    row = next(line for line in text.splitlines() if line.startswith("| baseline"))
    assert [cell.strip() for cell in row.split("|")][5] == "no"
    assert "The verdict is the same: Faster, cause unknown." in text
    assert "No setting differs." in text
    assert "machines differ" not in text


def test_nothing_beyond_noise_is_told_as_that(measured: Measure, tmp_path: Path) -> None:
    run = measured({"baseline": 100, "pipeline": 150})
    text = _difference(tmp_path, run, measured({"baseline": 100, "pipeline": 150}))
    assert "- Nothing changed beyond noise: `baseline`, `pipeline`." in text


def test_one_repeat_never_says_that_nothing_changed(measured: Measure, tmp_path: Path) -> None:
    text = _difference(
        tmp_path,
        measured({"baseline": 1000, "pipeline": 1500}, repeats=1),
        measured({"baseline": 1000, "pipeline": 750}, repeats=1),
    )
    assert "Nothing changed" not in text
    assert "one repeat" in text
    assert "whether images per second changed is not known: `baseline` (1.000 times), " in text
    assert "`pipeline` (0.500 times)." in text


def test_settings_machines_and_servers_that_differ_are_listed(
    measured: Measure, tmp_path: Path
) -> None:
    before, after = (measured({"baseline": 100, "pipeline": 150}) for _ in range(2))
    after = replace(
        after,
        machine={**after.machine, "cpu_model": "Another processor"},
        settings={**after.settings, "duration_s": 2.0, "port": 9000},
    )
    server = after.workloads[0].variants[1].server
    assert server is not None
    after.workloads[0].variants[1] = replace(
        after.workloads[0].variants[1], server={**server, "settings": {"lock": "off"}}
    )
    lines = _difference(tmp_path, before, after).splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if "|" in line]
    assert ["machine cpu_model", "A processor", "Another processor"] in rows
    assert ["setting duration_s", "1.0", "2.0"] in rows
    assert ["tiny pipeline lock", "on", "off"] in rows
    assert not any("port" in row[0] for row in rows)
    assert "The machines differ: QPS and latencies compare these, too." in lines


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kind": "run"}, "one is a run of 'compare', the other one of 'run'"),
        ({"kind": "batching"}, "a run of 'batching' is none of compare, sweep, run"),
        ({"images": [{"name": "a", "sha256": "01", "size_bytes": 1}]}, "other images were sent"),
        ({"request_client": 4}, "request_client is 10 in one and 4 in the other"),
        ({"name": "big"}, "no workload is in both: tiny and big"),
        ({"model_sha256": "cd" * 32}, "tiny is another model"),
        ({"variants": []}, "tiny has no row in both"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    change: dict[str, object], words: str, measured: Measure, tmp_path: Path
) -> None:
    before, after = (measured({"baseline": 100}) for _ in range(2))
    (name,) = change
    if name in {"kind", "images"}:
        after = replace(after, **change)
    elif name in {"name", "model_sha256", "variants"}:
        after.workloads[0] = replace(after.workloads[0], **change)
    else:
        after = replace(after, settings={**after.settings, **change})
    with pytest.raises(LoadTestError, match="cannot be compared") as raised:
        _difference(tmp_path, before, after)
    assert words in str(raised.value)


def test_the_command_takes_one_folder_or_diff_and_two(
    loadtest: LoadTest, measured: Measure, tmp_path: Path
) -> None:
    for name in ("one", "diff"):
        raw_files.write(tmp_path / name, measured({"baseline": 100, "pipeline": 150}))
    done = loadtest("report", "diff", "one", "diff")
    assert done.returncode == 0, done.stderr
    assert "Nothing changed beyond noise" in done.stdout
    # A folder of that name is still one.
    done = loadtest("report", "diff")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1] == f"report: {(tmp_path / 'diff' / 'report.html').as_uri()}"
    page = (tmp_path / "diff" / "report.md").read_text()
    assert page.splitlines()[2].startswith("**tiny: Faster, cause unknown.** Perhaps: `pipeline`")
    for sentence in lines[-5:-2]:
        assert sentence in page
    for words, message in (
        (("diff", "one"), "report diff takes two measured folders, got 1"),
        (("one", "diff"), "two are compared by `report diff one diff`"),
    ):
        done = loadtest("report", *words)
        assert (done.returncode, done.stdout) == (2, "")
        assert message in done.stderr
    done = loadtest("report", "diff", "one", "none")
    assert done.returncode == 2
    assert "'none' is not a measured folder" in done.stderr


def test_a_limit_is_passed_with_the_whole_interval(measured: Measure) -> None:
    run = measured({"baseline": 1000, "pipeline": 1500})
    assert require_gain(run, 1.05).startswith("tiny: 'pipeline' serves 1.49")
    with pytest.raises(BelowLimitError, match=r"95 % interval \[1.49.*not all of it is at least"):
        require_gain(run, 1.4985)
    with pytest.raises(BelowLimitError, match="one repeat proves nothing"):
        require_gain(measured({"baseline": 1000, "pipeline": 1500}, repeats=1), 1.05)
    with pytest.raises(LoadTestError, match="no ratio"):
        require_gain(measured({"baseline": 1000}), 1.05)
    for window in run.workloads[0].windows:
        if window.variant == "baseline":
            window.records[0] = replace(window.records[0], failed_images=1, error="x")
    with pytest.raises(BelowLimitError, match="5 images to 'baseline' without an answer"):
        require_gain(run, 1.05)


def test_a_limit_without_both_sides_is_wrong_usage(loadtest: LoadTest) -> None:
    """It is told before anything starts."""
    done = loadtest("compare", "--fail-below", 1.05, "--variants", "pipeline", "--name", "local")
    assert done.returncode == 2, done.stderr
    assert "--fail_below judges the ratio of a pipeline to 'baseline'" in done.stderr
