"""`peers`: one that needs no package of its own through the real path, and one that is missing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from loadtest.measure.null_model import write_null_model
from loadtest.records import raw_files
from loadtest.records.run import TRIAL

Command = Callable[..., CompletedProcess[str]]
SHORT = ("--duration_s", "0.5", "--warmup_s", "0", "--repeats", "1", "--clients", "2")


def test_a_peer_is_compared_and_what_is_not_installed_costs_only_itself(
    loadtest: Command, few_photographs: Path, port: int, tmp_path: Path
) -> None:
    done = loadtest(
        *("peers", "--output_dir", "out", "--workloads", "null", "--variants", "pipeline"),
        *("--peers", "thriftpy2,mosec", "--peers_dir", "none", "--img_dir", few_photographs),
        *("--port", port, "--request_client", "2", "--deadline_ms", "60000", *SHORT),
    )
    assert done.returncode == 0, done.stderr
    run = raw_files.read(tmp_path / "out")
    assert run.complete
    workload = run.workloads[0]
    kept = [entry["variant"] for entry in run.results["kept"]]
    assert kept[0] == "pipeline"
    assert kept[1] in {"thriftpy2-locked", "thriftpy2-no-lock"}
    failed = {entry["variant"]: entry["reason"] for entry in run.results["failures"]}
    assert failed.keys() == {"mosec-one-each", "mosec-batches-2", "mosec-two-stages"}
    assert all("install_peers --peers mosec" in reason for reason in failed.values())
    assert workload.agreement is not None
    assert workload.agreement["images"] == 4
    kinds = {
        name: {
            "trial"
            if window.repeat == TRIAL
            else ("closed" if window.offered_per_s is None else "open")
            for window in workload.windows
            if window.variant == name
        }
        for name in kept
    }
    assert kinds == {"pipeline": {"closed", "open"}, kept[1]: {"trial", "closed", "open"}}
    assert not any(r.failed_images for w in workload.windows for r in w.records if w.clients)
    report = (tmp_path / "out" / "report.md").read_text()
    for part in (kept[1], "### Overload", "### Settings that were tried", "mosec is not installed"):
        assert part in report
    # What it was started with may be read by everyone who gets the folder.
    assert str(tmp_path) not in json.dumps([run.command, run.settings, run.results])


def test_nothing_is_timed_without_this_projects_own_answers(
    loadtest: Command, few_photographs: Path, port: int, tmp_path: Path
) -> None:
    model = write_null_model(tmp_path / "models")
    done = loadtest(
        *("peers", "--output_dir", "out", "--workloads", model, "--variants", "pipeline"),
        *("--peers", "thriftpy2", "--img_dir", few_photographs, "--port", port),
        *("--launch_prefix", "false", *SHORT),
    )
    assert done.returncode == 1
    assert "nothing was timed: the pipeline server ended with exit code 1" in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--peers", "moses"], "unknown peer 'moses'; did you mean 'mosec'?"),
        (["--variants", "in-process,pipeline"], "'in-process' has no server"),
        (["--precisions", "fp8"], "must be one of fp32, "),
        (["--overload", "-1"], "must be 0 to 100, got -1"),
        (["--workloads", "none.onnx"], "'none.onnx' of --workloads does not exist"),
    ],
)
def test_a_mistake_is_told_before_anything_starts(
    words: list[str], message: str, loadtest: Command, few_photographs: Path
) -> None:
    done = loadtest("peers", "--img_dir", few_photographs, *words)
    assert done.returncode in (1, 2)
    assert message in done.stderr
