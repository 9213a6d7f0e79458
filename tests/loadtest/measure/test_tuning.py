"""`tune`: a real search, the file that it writes, and what it says of a winner that is none."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import pytest
import tomli

from interfaces.tuning import Tunable
from loadtest.measure.tuning_space import Setting, choices, default_setting, document_of
from loadtest.records import raw_files
from loadtest.records.run import Run, VariantRun, Window
from loadtest.records.tuned import searched, setting_of, verdict, winner
from loadtest.report.pages import PAGES
from pipeline.config import parse_config
from tests.robustness.colour_model import ColourModel

LoadTest = Callable[..., subprocess.CompletedProcess[str]]
_OWN_FILE = """
[images]
backend = "S[DecodeMat,ResizeMat,cvtColorMat,Mat2Tensor]"
resize_h = 32
resize_w = 32
color = "rgb"
next = "colours"

[colours]
backend = "TensorrtTensor"
model = "{model}"
mean = "0, 0, 0"
std = "255, 255, 255"
min = 1
max = "1x3x32x32"
instance_num = 1
"""
_TUNABLE = Tunable(
    document={
        "batching_timeout": 5,
        "instance_num": 2,
        "decoder": {"backend": "DecodeMat", "next": "net"},
        "net": {"backend": "TensorrtTensor", "model": "m.onnx", "max": "4x3x8x8"},
    },
    engine_node="net",
    thread_nodes=["decoder"],
    instance_num=2,
    most_rows=4,
    shapes=["x3x8x8"],
    batching_timeout_ms=5.0,
    threads=2,
    on_gpu=False,
)


def test_a_real_search_measures_pairs_and_writes_a_file_that_serves(
    loadtest: LoadTest, port: int, few_photographs: Path, colour_model: ColourModel, tmp_path: Path
) -> None:
    # What it says need not be measured.
    (tmp_path / "own.toml").write_text(_OWN_FILE.format(model=colour_model.model))
    done = loadtest(
        *("tune", "--model", colour_model.model, "--config", tmp_path / "own.toml"),
        *("--clients", "1,2", "--duration_s", 0.3, "--warmup_s", 0.05, "--slo_ms", 60_000),
        *("--tries", 1, "--repeats", 2, "--budget_s", 600),
        *("--port", port, "--img_dir", few_photographs),
        *("--engine", "onnxruntime", "--output_dir", "out"),
    )
    assert done.returncode == 0, done.stderr
    run = raw_files.read(tmp_path / "out")
    assert run.complete
    pairs = searched(run)
    assert pairs
    for number, pair in pairs.items():
        assert [rung.clients for rung in pair.setting.rungs] == [1, 2][-len(pair.setting.rungs) :]
        assert pair.default.rungs
        # A window of the one is next to a window of the other.
        names = [w.variant for w in run.workloads[0].windows if w.repeat == number][:2]
        assert sorted(names) == ["default", f"trial-{number}"]
    assert not any(record.error for w in run.workloads[0].windows for record in w.records)
    report = (tmp_path / "out" / "report.md").read_text()
    first = report.split("\n\n")[1]
    assert first.startswith(("**Take best.toml**", "**Keep the default**"))
    assert first in done.stdout
    picture = cv2.imread(str(tmp_path / "out" / "settings.png"))
    assert picture is not None
    assert picture.std() > 5  # not a blank page

    text = (tmp_path / "out" / "best.toml").read_text()
    assert "# python -m service --handler pipeline --config out/best.toml --engine" in text
    config = parse_config(tomli.loads(text))
    taken = setting_of(run, winner(run) if verdict(run).is_gain else None)
    assert f"--workers {taken['workers']}\n" in text
    assert config.with_instances["colours"].instance_num == taken["instance_num"]
    assert str(config.with_instances["colours"].settings["max"]) == f"{taken['max']}x3x32x32"
    assert config.with_instances["images"].instance_num == taken["threads"]
    assert not list((tmp_path / "out").glob(".trial*"))


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--variants", "baseline"], 2, "--variants takes one variant of the pipeline"),
        (["--variants", "pipeline,pipeline-2w"], 2, "--variants takes one variant"),
        (["--workload", "a,b"], 2, "--workload takes one model, got 'a,b'"),
        (["--slo_ms", "0"], 2, "must be above 0"),
        (["--config", "no.toml"], 2, "configuration file 'no.toml' does not exist"),
    ],
)
def test_what_cannot_be_tuned_is_told(
    words: list[str], code: int, message: str, loadtest: LoadTest
) -> None:
    done = loadtest("tune", *words)
    assert done.returncode == code
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_setting_is_written_into_the_tables_that_have_it() -> None:
    setting = Setting(1, 8, 0, 4, 2)
    document = document_of(_TUNABLE, setting)
    assert document["net"] == {
        "backend": "TensorrtTensor",
        "model": "m.onnx",
        "max": "8x3x8x8",
        "instance_num": 1,
        "batching_timeout": 0,
    }
    assert document["decoder"]["instance_num"] == 4
    assert document["batching_timeout"] == 5
    assert _TUNABLE.document["net"]["max"] == "4x3x8x8"


@pytest.mark.parametrize("cores", [1, 2, 16])
def test_choices_fit_the_cores_and_the_limit_and_have_the_default(cores: int) -> None:
    default = default_setting(_TUNABLE, 1)
    found = choices(default, 5.0, cores, on_gpu=False)
    assert all(default.as_record()[name] in values for name, values in found.items())
    assert all(values == sorted(set(values)) for values in found.values())
    assert max(found["batching_timeout"]) == 5.0  # the default's; no other is as long as the limit
    assert max(found["workers"]) <= max(cores, 1)


@pytest.fixture
def tuned(repeat_of: Callable[..., Window], run_of: Callable[..., Run]) -> Callable[..., Run]:
    """A run with one setting: images a second in the search, and in each pair of the end."""

    def windows(name: str, own: int, default: int, number: int, ms: float) -> list[Window]:
        listed = ((name, own), ("default", default))
        return [
            replace(repeat_of(variant, number, [ms] * rate, 1.0), clients=1, client_processes=1)
            for variant, rate in listed
        ]

    def make(search: tuple[int, int], again: list[tuple[int, int]], ms: float = 5.0) -> Run:
        names = ["default", "trial-1"]
        run = run_of(names, windows("trial-1", *search, 1, ms), 1)
        default = Setting(2, 1, 5, 2, 1).as_record()
        trial = {"trial": 1, **Setting(1, 4, 0, 2, 1).as_record(), "error": ""}
        failed = {"trial": 2, **Setting(1, 8, 0, 2, 1).as_record(), "error": "it did not start"}
        final = [w for i, pair in enumerate(again, 1) for w in windows("trial-1", *pair, i, ms)]
        (workload,) = run.workloads
        workload.variants[:] = [
            VariantRun(name, name, workload.variants[0].server) for name in names
        ]
        if final:
            run.workloads.append(replace(workload, name="tiny-final", windows=final))
        settings = {**run.settings, "slo_ms": 10.0, "clients": [1, 2], "budget_s": 60.0}
        results = {"trials": [trial, failed], "default": default}
        return replace(run, kind="tune", settings=settings, results=results)

    return make


def _said(run: Run) -> str:
    return PAGES["tune"].terminal(run)


def _reported(run: Run, folder: Path) -> str:
    """The same of the raw files, from which all tables and charts of the report are made, too."""
    raw_files.write(folder, run)
    page = PAGES["tune"]
    read = raw_files.read(folder)
    assert len(page.values(read, folder)["tables"]) == len(run.workloads)
    return page.terminal(read)


def test_a_gain_that_repeats_is_taken(tuned: Callable[..., Run], tmp_path: Path) -> None:
    run = tuned((150, 100), [(120, 100), (126, 104), (118, 99), (121, 100)])
    text = _reported(run, tmp_path)
    assert "**Take best.toml** (trial-1: instance_num 1, max 4, " in text
    assert "it serves 1.21 times the images per second of the default" in text
    assert "it did not start" in text
    assert "Not measured, for reasons that the table tells: trial-2." in text


def test_a_gain_within_the_noise_is_not(tuned: Callable[..., Run]) -> None:
    run = tuned((150, 100), [(120, 100), (90, 104), (118, 119), (99, 100)])
    text = _said(run)
    assert text.startswith("| Setting")
    assert "**Keep the default**: measured again, trial-1, the best of 1 setting, serves" in text
    assert "which is inside the noise" in text
    assert not verdict(run).is_gain


def test_a_winner_that_loses_is_not(tuned: Callable[..., Run]) -> None:
    run = tuned((150, 100), [(80, 100), (81, 104), (79, 100)])
    assert "which is less" in _said(run)
    assert not verdict(run).is_gain


def test_nothing_better_in_the_search_keeps_the_default(
    tuned: Callable[..., Run], tmp_path: Path
) -> None:
    run = tuned((90, 100), [])
    assert winner(run) is None
    assert "none of 1 setting was better within TP99 <= 10 ms" in _reported(run, tmp_path)


def test_a_run_in_which_every_setting_failed_has_a_report(
    tuned: Callable[..., Run], tmp_path: Path
) -> None:
    run = tuned((150, 100), [])
    run.results["trials"].pop(0)
    run.workloads[0].windows.clear()
    text = _reported(run, tmp_path)
    assert "**Keep the default**: no setting could be measured" in text
    assert "Not measured, for reasons that the table tells: trial-2." in text


def test_a_limit_that_nothing_holds_is_said(tuned: Callable[..., Run]) -> None:
    text = _said(tuned((150, 100), [(120, 100)] * 3, ms=25.0))
    assert "**Keep the default**" in text
    assert "the default missed the limit in 4 of 4 turns, with a TP99 of 25.00 ms at best" in text
