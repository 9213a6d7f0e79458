"""`sweep` and `gpu_session`, with the real service and with servers that misbehave."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import cv2
import psutil
import pytest

from loadtest.load.clients import fitting_client_processes
from loadtest.records import raw_files
from tests.robustness.colour_model import ColourModel

LoadTest = Callable[..., subprocess.CompletedProcess[str]]
StartLoadTest = Callable[..., "subprocess.Popen[str]"]
FakeService = Callable[..., str]


def test_a_real_sweep_measures_every_number_of_clients_with_one_server(
    loadtest: LoadTest,
    port: int,
    few_photographs: Path,
    colour_model: ColourModel,
    tmp_path: Path,
) -> None:
    done = loadtest(
        *("sweep", "--workload", colour_model.model, "--mean", "0,0,0", "--std", "255,255,255"),
        *("--variants", "pipeline-2w"),
        *("--clients", "1,3", "--repeats", 2, "--duration_s", 0.2, "--warmup_s", 0.1),
        *("--port", port, "--img_dir", few_photographs, "--engine", "onnxruntime"),
        *("--client_processes", 2, "--tp99_limit_ms", 60_000, "--output_dir", "out"),
    )
    assert done.returncode == 0, done.stderr
    run = raw_files.read(tmp_path / "out")
    assert (run.kind, run.complete) == ("sweep", True)
    order = [(r.repeat, r.clients) for r in run.workloads[0].windows]
    assert order == [(1, 1), (1, 3), (2, 3), (2, 1)]
    for repeat in run.workloads[0].windows:
        assert repeat.records
        assert not any(record.error for record in repeat.records)
        assert repeat.client_processes == min(2, repeat.clients or 0)
        assert repeat.samples[-1].values["server_cpu_s"] is not None
    assert run.workloads[0].agreement is not None
    workers = run.workloads[0].variants[0].server
    assert workers is not None
    assert workers["workers"] == 2
    report = (tmp_path / "out" / "report.md").read_text()
    title, verdict = report.split("\n\n")[:2]
    assert title == "# Throughput and latency over the number of clients"
    assert verdict.startswith("**`pipeline-2w` serves at its best with TP99 <= 60000 ms: ")
    assert report.count("| pipeline-2w ") == 2
    picture = cv2.imread(str(tmp_path / "out" / "colours-clients.png"))
    assert picture is not None
    assert picture.std() > 5  # not a blank page

    for command in ("report", "thin", "report"):
        done = loadtest(command, "out")
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "out" / "report.md").read_text() == report
    assert not any(
        record.image for record in raw_files.read(tmp_path / "out").workloads[0].windows[0].records
    )


def test_a_variant_that_fails_leaves_the_others_measured(
    loadtest: LoadTest, port: int, few_photographs: Path, fake_service: FakeService, tmp_path: Path
) -> None:
    done = loadtest(
        *("sweep", "--workload", "fake", "--variants", "pipeline,baseline", "--clients", "1,2"),
        *("--repeats", 1, "--duration_s", 0.3, "--warmup_s", 0.1, "--port", port),
        *("--img_dir", few_photographs, "--output_dir", "out"),
        *("--launch_prefix", fake_service("pipeline-dies-midway"), "--keep_servers"),
    )
    assert done.returncode == 1
    assert "pipeline: the pipeline server ended with exit code 9" in done.stderr.splitlines()[-1]
    run = raw_files.read(tmp_path / "out")
    assert not run.complete
    assert [r.clients for r in run.workloads[0].windows if r.variant == "baseline"] == [1, 2]
    assert "**Partial**" in (tmp_path / "out" / "report.md").read_text()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_no_child_outlives_a_sweep_that_ends_under_load(
    number: signal.Signals,
    code: int,
    start_loadtest: StartLoadTest,
    fake_service: FakeService,
    tmp_path: Path,
    few_photographs: Path,
    port: int,
) -> None:
    fifo = tmp_path / "pids"
    os.mkfifo(fifo)
    process = start_loadtest(
        *("sweep", "--workload", "fake", "--variants", "baseline,pipeline", "--clients", "4"),
        *("--duration_s", 60, "--port", port, "--img_dir", few_photographs, "--output_dir", "out"),
        *("--launch_prefix", fake_service("tells-of-load", fifo), "--keep_servers"),
    )
    server_pid = int(fifo.read_text())
    children = psutil.Process(process.pid).children(recursive=True)
    assert server_pid in {child.pid for child in children}
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Traceback" not in stderr
    _, alive = psutil.wait_procs(children, timeout=30)
    assert not alive


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--variants", "in-process"], "names no server"),
        (["--variants", "pipeline,in-process"], "'in-process' has no server"),
        (["--workload", "a,b"], "--workload takes one model"),
    ],
)
def test_bad_input_is_one_line(loadtest: LoadTest, arguments: list[str], words: str) -> None:
    done = loadtest("sweep", *arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_both_handlers_take_turns_and_one_sentence_says_which_serves_more(
    loadtest: LoadTest, port: int, few_photographs: Path, fake_service: FakeService, tmp_path: Path
) -> None:
    done = loadtest(
        *("sweep", "--workload", "fake", "--clients", "1,2", "--repeats", 2, "--duration_s", 0.1),
        *("--warmup_s", 0.05, "--port", port, "--img_dir", few_photographs, "--slo_ms", 60_000),
        *("--launch_prefix", fake_service("behaves"), "--output_dir", "out"),
    )
    assert done.returncode == 0, done.stderr
    windows = raw_files.read(tmp_path / "out").workloads[0].windows
    assert [(w.variant, w.repeat, w.clients) for w in windows] == [
        *(("baseline", 1, 1), ("baseline", 1, 2)),
        *(("pipeline", 1, 1), ("pipeline", 1, 2), ("pipeline", 2, 2), ("pipeline", 2, 1)),
        *(("baseline", 2, 2), ("baseline", 2, 1)),
    ]
    verdict = (tmp_path / "out" / "report.md").read_text().split("\n\n")[1]
    assert re.fullmatch(
        r"\*\*(`(baseline|pipeline)` serves|It is not proven which serves) the most with "
        r"TP99 <= 60000 ms.*, which is "
        r".* times what is served by `(baseline|pipeline)` at its best .* 2 paired repeats, "
        r"95 % interval \[.*\]\).*\.",
        verdict,
    )
    assert verdict in done.stdout


@pytest.mark.parametrize("clients", ["0,1", "2,2", "x"])
def test_numbers_of_clients_are_checked(loadtest: LoadTest, clients: str) -> None:
    done = loadtest("sweep", "--clients", clients)
    assert done.returncode == 2
    assert "--clients" in done.stderr


@pytest.mark.parametrize(
    ("clients", "cores", "with_gpu", "processes"),
    [
        (10, 16, False, 1),
        (16, 16, False, 1),
        (17, 16, False, 3),
        (10, 16, True, 5),
        (1, 16, True, 1),
        (128, 16, True, 8),
        (128, 2, False, 1),
    ],
)
def test_client_processes_grow_with_the_clients_and_leave_cores_to_the_server(
    clients: int, cores: int, with_gpu: bool, processes: int
) -> None:
    assert fitting_client_processes(clients, cores, with_gpu=with_gpu) == processes


_TURNS = [("pipeline-2w", 1), ("pipeline", 1), ("pipeline", 2), ("pipeline-2w", 2)]


def test_a_session_measures_everything_and_packs_it(
    loadtest_process: LoadTest,
    port: int,
    few_photographs: Path,
    fake_service: FakeService,
    tmp_path: Path,
) -> None:
    done = loadtest_process(
        *("gpu_session", "--out", "all", "--archive", "all.tar.gz", "--budget_s", 60),
        *("--variants", "baseline,pipeline", "--sweep_variant", "pipeline", "--workers", "2,1"),
        *("--clients", "1,3", "--workload", "fake", "--repeats", 2, "--duration_s", 0.1),
        *("--sweep_repeats", 2, "--request_client", 2),
        *("--stages_s", 0.1, "--warmup_s", 0.05, "--port", port, "--img_dir", few_photographs),
        *("--launch_prefix", fake_service("behaves")),
    )
    assert done.returncode == 0, done.stderr
    compared = raw_files.read(tmp_path / "all" / "compare")
    assert [r.variant for r in compared.workloads[0].windows] == [
        *("baseline", "pipeline", "pipeline", "baseline")
    ]
    assert [stages.variant for stages in compared.workloads[0].stages] == ["baseline", "pipeline"]
    swept = raw_files.read(tmp_path / "all" / "sweep")
    assert [(r.variant, r.repeat, r.clients) for r in swept.workloads[0].windows] == [
        (variant, repeat, clients)
        for variant, repeat in _TURNS
        for clients in ((1, 3) if repeat == 1 else (3, 1))
    ]
    assert swept.complete
    assert swept.workloads[0].agreement is not None
    with tarfile.open(tmp_path / "all.tar.gz") as archive:
        names = archive.getnames()
    for folder in ("compare", "sweep"):
        assert {f"{folder}/run.json", f"{folder}/report.md"} <= set(names)


def test_a_session_that_runs_out_of_time_keeps_and_packs_what_it_has(
    loadtest_process: LoadTest,
    port: int,
    few_photographs: Path,
    fake_service: FakeService,
    tmp_path: Path,
) -> None:
    """The comparison's windows take what there is; nothing is left for stages and the sweep."""
    done = loadtest_process(
        *("gpu_session", "--out", "all", "--archive", "all.tar.gz", "--budget_s", 10),
        *("--variants", "baseline,pipeline", "--sweep_variant", "pipeline", "--workers", "1,2,3"),
        *("--clients", "1,2,3,4,5,6,7,8", "--workload", "fake", "--port", port),
        *("--img_dir", few_photographs, "--launch_prefix", fake_service("behaves")),
        *("--request_client", 1),
    )
    compared = raw_files.read(tmp_path / "all" / "compare")
    assert not compared.complete
    assert "no time for" in done.stderr
    assert (tmp_path / "all.tar.gz").is_file()
