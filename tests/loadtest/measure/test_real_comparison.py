"""`compare` with the real service and the in-process upper bound, and with several processes."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from statistics import fmean

import pytest

from loadtest.records import raw_files
from loadtest.records.node_counts import NodeCounts
from loadtest.report.stage_summary import stage_parts
from tests.robustness.colour_model import LABELS, ColourModel, encoded

LoadTest = Callable[..., subprocess.CompletedProcess[str]]
FakeService = Callable[..., str]


def test_a_real_comparison_of_both_handlers_and_the_upper_bound(
    loadtest: LoadTest, port: int, colour_model: ColourModel, tmp_path: Path
) -> None:
    (tmp_path / "images").mkdir()
    for label in LABELS:
        (tmp_path / "images" / f"{label}.jpg").write_bytes(encoded(label, 320, 240))
    done = loadtest(
        *("compare", "--workloads", colour_model.model, "--mean", "0,0,0", "--std", "255,255,255"),
        *("--repeats", 1, "--duration_s", 0.3),
        *("--warmup_s", 0.1, "--port", port, "--img_dir", "images"),
        *("--variants", "baseline,pipeline,in-process,decode-alone-cpu"),
        *("--engine", "onnxruntime", "--request_client", 4, "--stages_s", 0.3),
        *("--output_dir", "out", "--keep_servers"),
    )
    assert done.returncode == 0, done.stderr
    run = raw_files.read(tmp_path / "out")
    workload = run.workloads[0]
    order = ["baseline", "pipeline", "in-process"]
    assert [repeat.variant for repeat in workload.windows] == order
    assert (workload.engine, workload.precision) == ("onnxruntime", "fp32")
    assert workload.agreement is not None
    assert workload.agreement["largest_score_difference"] < 0.001
    assert workload.agreement["distinct_labels"] == len(LABELS)
    for repeat in workload.windows[:2]:
        assert repeat.records
        assert not any(record.error for record in repeat.records)
    assert run.complete
    (part,) = workload.parts
    assert (part.name, list(part.images_per_s)) == ("decode-alone-cpu", ["1"])
    assert [stages.variant for stages in workload.stages] == ["baseline", "pipeline"]
    for stages in workload.stages:
        assert {part.kind for part in stage_parts(stages)} >= {"queue", "decode", "resize"}
        latency_ms = fmean(request.latency_ms for request in stages.requests)
        assert sum(p.mean_ms for p in stage_parts(stages)) == pytest.approx(latency_ms, rel=0.01)
    *_, model_node = NodeCounts.of_window(workload.windows[1]).values()
    # Each of the four clients has one request on its way at either end of the window.
    assert model_node.items >= len(workload.windows[1].records) - 4
    in_batches = sum(n * size for size, n in model_node.batches_by_size.items())
    assert in_batches == pytest.approx(model_node.items, abs=2 * 4)
    assert set(model_node.batches_by_reason) <= {"full", "idle", "timeout"}
    limit = workload.windows[2].images_per_s
    assert limit is not None
    assert limit > 0
    report = (tmp_path / "out" / "report.md").read_text()
    assert "`pipeline` serves" in report
    assert "| left: full | left: idle | left: timeout |" in report
    assert "Only 1 repeats" in report
    for name in order:
        assert f"| {name}" in done.stdout
    assert str(tmp_path) not in (tmp_path / "out" / raw_files.RUN_FILE).read_text()

    rebuilt = loadtest("report", "out")
    assert rebuilt.returncode == 0, rebuilt.stderr
    assert (tmp_path / "out" / "report.md").read_text() == report


def test_a_pipeline_of_several_processes_is_compared_with_as_many_of_the_baselines(
    loadtest: LoadTest,
    port: int,
    few_photographs: Path,
    fake_service: FakeService,
    tmp_path: Path,
) -> None:
    done = loadtest(
        *("compare", "--workloads", "fake,other", "--repeats", 1, "--warmup_s", 0),
        *("--duration_s", 0.3, "--stages_s", 0.1, "--port", port, "--img_dir", few_photographs),
        *("--request_client", 2, "--output_dir", "out"),
        *("--launch_prefix", fake_service("takes-three-processes"), "--keep_servers"),
    )
    assert done.returncode == 0, done.stderr
    added = "added, to compare equal numbers of processes: baseline-3w, baseline-no-lock-3w"
    assert added in done.stderr
    run = raw_files.read(tmp_path / "out")
    rows = ["baseline", "baseline-3w", "baseline-no-lock", "baseline-no-lock-3w", "pipeline-3w"]
    assert run.complete
    assert run.settings["variants"][:5] == rows
    for workload in run.workloads:
        assert [window.variant for window in workload.windows] == [*rows, "in-process"]
        told = {it.name: it.server["workers"] for it in workload.variants if it.server}
        assert told == dict(zip(rows, (1, 3, 1, 3, 3), strict=True))
        assert [stages.variant for stages in workload.stages] == ["baseline", "pipeline-3w"]
    report = (tmp_path / "out" / "report.md").read_text()
    assert "| 3 server processes     | baseline-no-lock-3w |" in report
