"""report.md, its plots and its sentences."""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import cv2

from loadtest.records import raw_files
from loadtest.records.run import PartRun, Run, StageRun, Window
from loadtest.report import document as report
from loadtest.report.pages import PAGES

Repeats = Callable[..., Window]
Runs = Callable[..., Run]


def _written(folder: Path, run: Run) -> str:
    raw_files.write(folder, run)
    report.build(folder, PAGES)
    return (folder / report.REPORT_FILE).read_text()


def _said(run: Run) -> str:
    """What the terminal shows: the same sentences without pictures, which take seconds to draw."""
    return PAGES[run.kind].terminal(run)


def _compared(repeat_of: Repeats, run_of: Runs, requests: dict[str, int]) -> Run:
    """Five repeats; a variant answers that many requests a second, a little more each time."""
    repeats = [
        repeat_of(name, number, [10_000 / (n + number)] * (n + number), 1.0)
        for number in range(1, 6)
        for name, n in requests.items()
    ]
    return run_of(list(requests), repeats)


def test_every_plot_is_a_picture_that_the_report_shows_and_a_rebuilt_one_is_identical(
    repeat_of: Repeats, run_of: Runs, tmp_path: Path
) -> None:
    text = _written(tmp_path, _compared(repeat_of, run_of, {"baseline": 100, "pipeline": 150}))
    pictures = {path.name: path.read_bytes() for path in tmp_path.glob("*.png")}
    assert sorted(pictures) == [
        "tiny-latency-distribution.png",
        "tiny-latency.png",
        "tiny-throughput.png",
        "tiny-utilisation.png",
        "tiny-waterfall.png",
    ]
    for name in pictures:
        assert f"]({name})" in text
        picture = cv2.imread(str(tmp_path / name))
        assert picture is not None
        assert picture.std() > 5  # not a blank page
    page, summary = (tmp_path / name for name in (report.HTML_FILE, report.SUMMARY_FILE))
    before = [page.read_bytes(), summary.read_bytes()]
    for name in (report.REPORT_FILE, page.name, summary.name, *pictures):
        (tmp_path / name).unlink()
    report.build(tmp_path, PAGES)
    assert (tmp_path / report.REPORT_FILE).read_text() == text
    assert [page.read_bytes(), summary.read_bytes()] == before
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.png")} == pictures


def test_a_model_of_any_name_has_its_pictures(
    repeat_of: Repeats, run_of: Runs, tmp_path: Path
) -> None:
    """One with spaces and brackets, which Markdown would end a link at, and of 253 bytes."""
    run = run_of(["pipeline"], [repeat_of("pipeline", 1, [10.0] * 100, 1.0)])
    workload = replace(run.workloads[0], name="my model (1)$" + "\N{LATIN SMALL LETTER AE}" * 120)
    text = _written(tmp_path, replace(run, kind="run", workloads=[workload]))
    links = re.findall(r"!\[.*\]\((.*)\)", text)
    assert links
    for link in links:
        assert not set(link) & set(" ()")
        assert (tmp_path / unquote(link)).exists()


def test_a_pipeline_that_loses_is_called_slower(repeat_of: Repeats, run_of: Runs) -> None:
    run = _compared(
        repeat_of, run_of, {"baseline": 2000, "baseline-no-lock": 3000, "pipeline": 1000}
    )
    text = _said(run)
    assert "`pipeline` serves 0.50 times" in text
    assert "it is slower" in text
    assert "no proven gain" in text


def test_the_gain_that_the_lock_explains_is_computed(repeat_of: Repeats, run_of: Runs) -> None:
    """1.41 times by taking the lock away, 2 times in all: half of the gain as logarithms."""
    run = _compared(
        repeat_of,
        run_of,
        {"baseline": 1000, "baseline-no-lock": 1414, "pipeline": 2000},
    )
    assert "Taking the lock away alone explains 50 % of the gain" in _said(run)


def test_a_difference_within_chance_is_called_that(
    repeat_of: Repeats, run_of: Runs, tmp_path: Path
) -> None:
    counts = [(100, 104), (104, 99), (98, 101), (103, 102)]
    repeats = [
        repeat_of(name, number, [10.0] * n, 1.0)
        for number, pair in enumerate(counts, 1)
        for name, n in zip(("baseline", "pipeline"), pair, strict=True)
    ]
    text = _written(tmp_path, run_of(["baseline", "pipeline"], repeats))
    assert "no difference beyond chance" in text
    assert "Only 4 repeats" in text


def test_a_gpu_that_is_not_there_is_not_available_and_published_rows_are_of_other_hardware(
    repeat_of: Repeats, run_of: Runs, tmp_path: Path
) -> None:
    """Neither is a zero, nor are the published rows to be taken for ones of this machine."""
    text = _written(tmp_path, _compared(repeat_of, run_of, {"baseline": 100}))
    utilisation = text.split("### Utilisation")[1]
    row = next(line for line in utilisation.splitlines() if line.startswith("| baseline"))
    assert row.split("|")[2].strip() == "n/a"
    assert "**Other hardware** (GTX 1080" in text
    assert "776.62" in text


def test_marks_and_errors_are_shown(repeat_of: Repeats, run_of: Runs, tmp_path: Path) -> None:
    repeat = repeat_of("baseline", 1, [10.0] * 100, 1.0, foreign_cores=0.5)
    repeat.records[0] = replace(repeat.records[0], failed_images=1, error="OVERLOADED: queue full")
    text = _written(tmp_path, run_of(["baseline"], [repeat]))
    assert "noisy, off Little's law, errors" in text
    assert "1 times OVERLOADED: queue full" in text


def test_a_thinned_folder_gives_the_same_tables_and_errors_from_a_smaller_file(
    repeat_of: Repeats, run_of: Runs, tmp_path: Path
) -> None:
    repeats = [
        repeat_of(name, number, [(7 + number + i * 37 % 1000 / 137) for i in range(1000)], 1.0)
        for number in range(1, 6)
        for name in ("baseline", "pipeline")
    ]
    for index, error in ((3, "OVERLOADED: queue full"), (1, "INTERNAL: no engine")):
        # The later one is the faster one: sorted by latency it would be told first.
        repeats[1].records[-index] = replace(
            repeats[1].records[-index], latency_ms=float(index), failed_images=1, error=error
        )
    text = _written(tmp_path, run_of(["baseline", "pipeline"], repeats))
    latencies = tmp_path / raw_files.LATENCY_FILE
    before_bytes = latencies.stat().st_size
    raw_files.thin(tmp_path)
    assert latencies.stat().st_size < before_bytes / 2
    assert "photo" not in gzip.decompress(latencies.read_bytes()).decode()
    report.build(tmp_path, PAGES)
    # Sentences round to 0.1 ms what is now rounded to 0.01 ms; tables and errors must not change.
    kept, again = (
        [line for line in told.splitlines() if line.startswith("|") or " times " in line]
        for told in (text, (tmp_path / report.REPORT_FILE).read_text())
    )
    assert again == kept
    assert [line.split(": ", 1)[1] for line in kept if "no engine" in line or "full" in line] == [
        "1 times OVERLOADED: queue full",
        "1 times INTERNAL: no engine",
    ]
    thinned = latencies.read_bytes()
    raw_files.thin(tmp_path)
    assert latencies.read_bytes() == thinned


def test_a_variant_without_requests_has_no_latency_row(
    repeat_of: Repeats, run_of: Runs, tmp_path: Path
) -> None:
    variant = "in-process"
    limit = replace(repeat_of(variant, 1, [1.0], 1.0), records=[], images_per_s=250.0)
    run = run_of(["baseline", variant], [repeat_of("baseline", 1, [10.0] * 100, 1.0), limit])
    text = _written(tmp_path, run)
    latency = text.split("### Response time")[1].split("###")[0]
    assert variant not in latency
    assert f"| {variant}" in text.split("### Throughput")[1].split("###")[0]


def test_decoding_on_the_gpu_is_compared_with_the_baseline_too(
    repeat_of: Repeats, run_of: Runs
) -> None:
    run = _compared(repeat_of, run_of, {"baseline": 100, "pipeline": 150, "pipeline-gpu": 300})
    text = _said(run)
    for name in ("pipeline", "pipeline-gpu"):
        assert f"From `baseline` to `{name}` TP50 goes from" in text


def test_a_part_that_could_not_be_measured_says_why(
    repeat_of: Repeats, run_of: Runs, tmp_path: Path
) -> None:
    run = _compared(repeat_of, run_of, {"baseline": 100})
    run.workloads[0].parts.extend(
        [
            PartRun("engine-alone", "the model", {"1": 250.0, "8": 900.0}, 2, ""),
            PartRun("decode-alone-gpu", "decoding", {}, 0, "it has no decoder"),
        ]
    )
    run.workloads[0].stages.append(StageRun("baseline", 10, [], [], "it did not start"))
    text = _written(tmp_path, run)
    assert "| engine-alone     |       2 |     250 |     900 |" in text
    assert "| decode-alone-gpu |     n/a |     n/a |     n/a |" in text
    assert "Not measured: it has no decoder" in text
    assert "Not measured: it did not start" in text


def test_a_run_that_was_stopped_says_so_and_pairs_what_it_has(
    repeat_of: Repeats, run_of: Runs, tmp_path: Path
) -> None:
    """The pipeline's second repeat is missing; the first ones still make a pair."""
    repeats = [
        repeat_of("baseline", 1, [10.0] * 100, 1.0),
        repeat_of("pipeline", 1, [10.0] * 200, 1.0),
        repeat_of("baseline", 2, [10.0] * 100, 1.0),
    ]
    run = replace(run_of(["baseline", "pipeline", "in-process"], repeats), complete=False)
    text = _written(tmp_path, run)
    assert "**Partial**" in text
    assert "Only 1 repeats" in text
    assert "`pipeline` serves 2.00 times" in text
    assert "median of 1 paired repeats" in text


def test_servers_that_were_kept_share_their_gpu_memory(
    repeat_of: Repeats, run_of: Runs, tmp_path: Path
) -> None:
    run = _compared(repeat_of, run_of, {"baseline": 100})
    text = _written(tmp_path, replace(run, settings={**run.settings, "keep_servers": True}))
    assert "GPU memory is that of all of them together" in text
