"""The way from the baseline to the pipeline, one change at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import pytest

from loadtest.records import raw_files
from loadtest.records.run import PartRun, Run, Window
from loadtest.report import document as report
from loadtest.report.findings import findings
from loadtest.report.pages import PAGES
from loadtest.report.style import styled
from loadtest.report.summary import summarise
from loadtest.report.waterfall import Waterfall, waterfall
from loadtest.report.waterfall_plot import chart

Compare = Callable[..., Run]


@pytest.fixture
def compared(repeat_of: Callable[..., Window], run_of: Callable[..., Run]) -> Compare:
    """Makes a run: each variant answers that many requests a second, a little more each time."""

    def run(rates: dict[str, int], repeats: int = 3) -> Run:
        windows = [
            repeat_of(name, number, [10.0] * (rate + number), 1.0)
            for number in range(1, repeats + 1)
            for name, rate in rates.items()
        ]
        return run_of(list(rates), windows)

    return run


def _of(run: Run, *, on_gpu: bool = False) -> Waterfall:
    found = waterfall(summarise(run, run.workloads[0]), on_gpu=on_gpu)
    assert found is not None
    return found


def _with_processes(run: Run, **processes: int) -> Run:
    """What the servers say of their processes; names with "_" for "-"."""
    variants = run.workloads[0].variants
    for index, variant in enumerate(variants):
        count = processes.get(variant.name.replace("-", "_"))
        if count is not None and variant.server is not None:
            variants[index] = replace(variant, server={**variant.server, "workers": count})
    return run


def test_a_machine_with_several_processes_has_one_change_a_step(compared: Compare) -> None:
    """The pipeline's number of processes is what its server says, not what its name does."""
    run = compared(
        {
            "baseline": 1000,
            "baseline-4w": 1500,
            "baseline-no-lock": 2000,
            "baseline-no-lock-4w": 3000,
            "pipeline": 3600,
            "in-process": 4000,
        }
    )
    found = _of(_with_processes(run, pipeline=4))
    assert [(step.label, step.row.name) for step in found.steps] == [
        ("baseline", "baseline"),
        ("its lock away", "baseline-no-lock"),
        ("4 server processes", "baseline-no-lock-4w"),
        ("batching and instances", "pipeline"),
    ]
    factors = [step.ratio.spread.median for step in found.steps if step.ratio]
    assert factors == pytest.approx([2.0, 1.5, 1.2], rel=0.01)
    assert found.whole.spread.median == pytest.approx(3.6, rel=0.01)
    assert sum(step.share or 0 for step in found.steps) == pytest.approx(1.0)
    assert found.notes == ["No step decodes on the GPU: the engine runs on the CPU."]
    assert found.bound is not None
    sentences = " ".join(findings(summarise(run, run.workloads[0])))
    assert "`pipeline` serves 2.40 times the images per second of `baseline-4w`" in sentences
    assert (
        "`pipeline` serves 1.20 times the images per second of `baseline-no-lock-4w`" in sentences
    )


def test_a_gpu_has_no_step_without_the_lock_and_decodes_with_equal_processes(
    compared: Compare,
) -> None:
    """Another number of processes with the other decoder is a change of its own."""
    rates = {"baseline": 1000, "baseline-5w": 2000, "pipeline": 2500, "pipeline-gpu": 4000}
    run = _with_processes(compared({**rates, "pipeline-gpu-5w": 3700}), pipeline=5, pipeline_gpu=4)
    found = _of(run, on_gpu=True)
    assert [(step.label, step.row.name) for step in found.steps[1:]] == [
        ("5 server processes", "baseline-5w"),
        ("its lock away, batching and instances", "pipeline"),
        ("decoder on the GPU", "pipeline-gpu-5w"),
        ("4 server processes instead of 5", "pipeline-gpu"),
    ]
    assert found.notes[0] == "No step takes away the lock alone: an engine on a GPU needs it."
    assert "`pipeline` changes 2 things at once" in found.notes[1]


def test_what_was_not_measured_is_no_step_and_is_told(compared: Compare) -> None:
    """Processes that only the pipeline was measured with stand behind what it does in one."""
    found = _of(compared({"baseline": 100, "pipeline": 150, "pipeline-4w": 300}))
    assert [step.label for step in found.steps[1:]] == [
        "its lock away, batching and instances",
        "4 server processes",
    ]
    note = "No step takes away the lock alone: `baseline-no-lock` was not measured."
    assert found.notes[0] == note
    without = "`baseline` was not measured with 4 server processes, which might be worth as much"
    assert any(told.startswith(without) for told in found.notes)
    alone = _of(compared({"baseline": 100, "baseline-no-lock": 150, "pipeline": 300}))
    assert "all served in one process here" in alone.notes[0]
    jump = _of(compared({"baseline": 100, "baseline-no-lock": 150, "pipeline-4w": 300}))
    assert jump.steps[-1].label == "4 server processes, batching and instances"
    assert "`pipeline-4w` changes 2 things at once" in jump.notes[-1]


def test_a_loss_and_one_repeat_are_called_that(compared: Compare, tmp_path: Path) -> None:
    run = compared({"baseline": 300, "baseline-no-lock": 150, "pipeline": 200}, repeats=1)
    found = _of(run)
    assert [step.ratio.is_distinct for step in found.steps if step.ratio] == [False, False]
    assert [step.share for step in found.steps] == [None, None, None]
    raw_files.write(tmp_path, run)
    report.build(tmp_path, PAGES)
    text = (tmp_path / report.REPORT_FILE).read_text()
    row = next(line for line in text.splitlines() if line.startswith("| its lock away"))
    cells = [cell.strip() for cell in row.split("|")[1:-1]]
    assert cells[-4:] == ["0.50", "n/a", "no", "n/a"]


@pytest.mark.parametrize("rates", [{"baseline": 100}, {"pipeline": 100, "in-process": 200}])
def test_without_both_ends_there_is_no_waterfall(
    rates: dict[str, int], compared: Compare, tmp_path: Path
) -> None:
    run = compared(rates)
    assert waterfall(summarise(run, run.workloads[0]), on_gpu=False) is None
    raw_files.write(tmp_path, run)
    report.build(tmp_path, PAGES)
    assert "What each change is worth" not in (tmp_path / report.REPORT_FILE).read_text()
    assert not [*tmp_path.glob("*waterfall*")]


def test_it_is_the_first_chart_of_the_report(compared: Compare, tmp_path: Path) -> None:
    run = compared({"baseline": 100, "baseline-no-lock": 150, "pipeline": 300, "in-process": 400})
    raw_files.write(tmp_path, run)
    report.build(tmp_path, PAGES)
    text = (tmp_path / report.REPORT_FILE).read_text()
    assert text.split("![")[1].split("(")[1].startswith("tiny-waterfall.png)")
    picture = cv2.imread(str(tmp_path / "tiny-waterfall.png"))
    assert picture is not None
    assert picture.std() > 5  # not a blank page


def test_where_no_upper_bound_runs_the_slower_part_alone_is_one(compared: Compare) -> None:
    run = compared({"baseline": 100, "pipeline-gpu": 300})
    parts = [
        PartRun("engine-alone-gpu", "", {"1": 400.0, "8": 900.0}, 1, ""),
        PartRun("decode-alone-gpu", "", {"1": 604.0}, 1, ""),
    ]
    rows = summarise(run, run.workloads[0])
    told = "`pipeline-gpu` reaches 50 % of its slower part alone, which is `decode-alone-gpu`"
    assert told in " ".join(findings(rows, parts))
    failed = [parts[0], replace(parts[1], images_per_s={}, error="no decoder")]
    assert "slower part" not in " ".join(findings(rows, failed))


@pytest.mark.parametrize(
    "rates",
    [
        {"baseline": 33, "baseline-no-lock": 38, "pipeline": 40, "in-process": 41},
        {"baseline": 100, "baseline-no-lock": 110, "pipeline": 400},
        {"baseline": 300, "baseline-no-lock": 310, "pipeline": 310},
    ],
)
def test_the_axis_of_the_chart_ends_with_its_bars(compared: Compare, rates: dict[str, int]) -> None:
    figure = styled(chart("x", "X", _of(compared(rates))).figure)
    figure.draw_without_rendering()
    (axes,) = figure.axes
    drawn = [*axes.lines, *axes.patches]
    furthest = max(x for it in drawn for x in it.get_path().get_extents(it.get_transform()).max[:1])
    area = axes.get_window_extent()
    assert furthest <= area.x1
    assert furthest >= area.x0 + 0.8 * area.width
    texts = [it.get_window_extent() for it in axes.texts if it.xycoords == "data"]
    assert len(texts) == len(rates) + 1
    assert all(area.x0 <= it.x0 and it.x1 <= area.x1 for it in texts)
