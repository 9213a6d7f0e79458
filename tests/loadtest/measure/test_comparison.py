"""`compare`, with servers that misbehave."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from loadtest.errors import LoadTestError
from loadtest.measure.agreement import Answer, compare_answers
from loadtest.records import raw_files
from loadtest.records.run import Run, Window

LoadTest = Callable[..., subprocess.CompletedProcess[str]]
StartLoadTest = Callable[..., "subprocess.Popen[str]"]
FakeService = Callable[..., str]


def _fails(done: subprocess.CompletedProcess[str], *words: str, code: int = 1) -> None:
    """One line that says what is wrong, behind the progress lines, and no stack trace."""
    assert done.returncode == code
    last = done.stderr.splitlines()[-1]
    assert last.startswith("loadtest: error: ")
    for word in words:
        assert word in last
    assert "Traceback" not in done.stderr


@pytest.fixture
def compare_fakes(
    loadtest: LoadTest, port: int, few_photographs: Path, fake_service: FakeService
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`compare` of baseline and pipeline, both served by a fake in the given mode."""

    def run(mode: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        return loadtest(
            *("compare", "--workloads", "fake", "--variants", "baseline,pipeline"),
            *("--repeats", 1, "--duration_s", 30, "--warmup_s", 0.1, "--port", port),
            *("--request_client", 2),
            *("--img_dir", few_photographs, "--launch_prefix", fake_service(mode)),
            *("--stages_s", 0, "--output_dir", "out", *arguments),
        )

    return run


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        (
            "dies-at-start",
            ["ended with exit code 1 before it was ready", "model file is imaginary"],
        ),
        ("dies-midway", ["ended with exit code 9 during", "out of imaginary memory"]),
        ("disagree", ["nothing was timed", ".jpg", "'cat' 0.7500", "'dog' 0.7500"]),
        ("wrong-precision", ["runs precision 'bf16', asked for 'fp32'"]),
        ("other-model", ["model_sha256 'baseline'", "compare like with like"]),
        ("other-pid", ["answers on port", "stop the other one"]),
        ("dirty-exit", ["exited with code 7 after SIGTERM"]),
    ],
)
def test_a_server_that_misbehaves_ends_the_comparison(
    mode: str, words: list[str], compare_fakes: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    _fails(compare_fakes(mode), *words)


def test_a_limit_that_is_missed_is_told_apart_from_a_server_that_fails(
    compare_fakes: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    missed = compare_fakes("well", "--duration_s", 0.2, "--fail_below", 1.05)
    assert missed.returncode == 1
    last = missed.stderr.splitlines()[-1]
    assert last.startswith("loadtest: below --fail_below 1.05: fake: 'pipeline' serves ")
    assert last.endswith("one repeat proves nothing, take more --repeats")
    failed = compare_fakes("dies-at-start", "--fail_below", 1.05)
    assert failed.returncode == 3
    assert "ended with exit code 1 before it was ready" in failed.stderr


def test_a_server_that_fails_midway_costs_nothing_that_was_measured(
    compare_fakes: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    done = compare_fakes("pipeline-dies-midway", "--duration_s", 0.3)
    _fails(done, "the pipeline server ended with exit code 9 during")
    run = raw_files.read(tmp_path / "out")
    assert not run.complete
    (repeat,) = run.workloads[0].windows
    assert repeat.variant == "baseline"
    assert repeat.records
    report = (tmp_path / "out" / "report.md").read_text()
    assert "**Partial**" in report
    assert "| baseline" in report


def test_a_killed_comparison_leaves_what_was_measured(
    start_loadtest: StartLoadTest,
    loadtest: LoadTest,
    fake_service: FakeService,
    tmp_path: Path,
    few_photographs: Path,
    port: int,
) -> None:
    fifo = tmp_path / "pids"
    os.mkfifo(fifo)
    process = start_loadtest(
        *("compare", "--workloads", "fake", "--variants", "baseline,pipeline", "--repeats", 1),
        *("--duration_s", 0.5, "--warmup_s", 0.1, "--port", port, "--img_dir", few_photographs),
        *("--launch_prefix", fake_service("tells-of-load", fifo), "--output_dir", "out"),
    )
    # Open for writing, too: its end is not reached between the two lines.
    with os.fdopen(os.open(fifo, os.O_RDWR)) as pids:
        pids.readline()  # the first variant is under load
        pids.readline()  # the second is, so the first one's window is over
    process.kill()
    process.communicate()
    rebuilt = loadtest("report", "out")
    assert rebuilt.returncode == 0, rebuilt.stderr
    assert [r.variant for r in raw_files.read(tmp_path / "out").workloads[0].windows] == [
        "baseline"
    ]
    assert "**Partial**" in (tmp_path / "out" / "report.md").read_text()


def test_answers_that_get_mixed_up_under_load_are_errors_in_the_report(
    compare_fakes: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    done = compare_fakes("mixes-answers", "--duration_s", 0.3)
    assert done.returncode == 0, done.stderr
    records = raw_files.read(tmp_path / "out").workloads[0].windows[0].records
    assert any(
        record.error == "wrong label \"somebody else's\", alone it gets 'cat'" for record in records
    )
    assert "Read with care: images without a right answer" in done.stdout


def _start_never_ready(
    start: StartLoadTest,
    fake_service: FakeService,
    folder: Path,
    images: Path,
    port: int,
    ready_timeout_s: float,
) -> tuple[subprocess.Popen[str], list[psutil.Process]]:
    """A comparison whose server loads for ever; the server and its child."""
    fifo = folder / "pids"
    os.mkfifo(fifo)
    process = start(
        *("compare", "--workloads", "fake", "--port", port, "--img_dir", images),
        *("--launch_prefix", fake_service("never-ready", fifo)),
        *("--ready_timeout_s", ready_timeout_s, "--output_dir", "out"),
    )
    # Opening blocks until the server writes.
    pids = [int(pid) for pid in fifo.read_text().split()]
    return process, [psutil.Process(pid) for pid in pids]


def _gone(processes: list[psutil.Process]) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=30)
    return not alive


def test_a_server_that_never_gets_ready_is_killed_with_its_children(
    start_loadtest: StartLoadTest,
    fake_service: FakeService,
    tmp_path: Path,
    few_photographs: Path,
    port: int,
) -> None:
    process, served = _start_never_ready(
        start_loadtest, fake_service, tmp_path, few_photographs, port, ready_timeout_s=1
    )
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "was not ready within 1 s (--ready_timeout_s); its last line: loading for ever" in stderr
    assert "Traceback" not in stderr
    assert _gone(served)


@pytest.mark.parametrize(
    ("number", "code", "line"),
    [
        (signal.SIGINT, 130, "loadtest: interrupted"),
        (signal.SIGTERM, 143, "loadtest: terminated"),
    ],
)
def test_an_interrupted_comparison_leaves_nothing_behind(
    number: signal.Signals,
    code: int,
    line: str,
    start_loadtest: StartLoadTest,
    fake_service: FakeService,
    tmp_path: Path,
    few_photographs: Path,
    port: int,
) -> None:
    process, served = _start_never_ready(
        start_loadtest, fake_service, tmp_path, few_photographs, port, ready_timeout_s=60
    )
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == code
    assert stderr.splitlines()[-1] == line
    assert "Traceback" not in stderr
    assert _gone(served)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)]
)
def test_no_child_outlives_a_comparison_that_ends_under_load(
    number: signal.Signals,
    code: int,
    start_loadtest: StartLoadTest,
    fake_service: FakeService,
    tmp_path: Path,
    few_photographs: Path,
    port: int,
) -> None:
    """Server and client processes go, whether the load test can clean up or is killed itself."""
    fifo = tmp_path / "pids"
    os.mkfifo(fifo)
    process = start_loadtest(
        *("compare", "--workloads", "fake", "--variants", "baseline", "--duration_s", 60),
        *("--port", port, "--img_dir", few_photographs, "--output_dir", "out"),
        *("--launch_prefix", fake_service("tells-of-load", fifo)),
    )
    server_pid = int(fifo.read_text())
    children = psutil.Process(process.pid).children(recursive=True)
    assert server_pid in {child.pid for child in children}
    assert len(children) >= 2
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Traceback" not in stderr
    assert _gone(children)


def test_a_killed_comparison_takes_its_server_along(
    start_loadtest: StartLoadTest,
    fake_service: FakeService,
    tmp_path: Path,
    few_photographs: Path,
    port: int,
) -> None:
    process, served = _start_never_ready(
        start_loadtest, fake_service, tmp_path, few_photographs, port, ready_timeout_s=60
    )
    process.kill()
    assert _gone(served[:1])
    served[1].kill()  # a child of the server is the server's own business


def test_a_port_in_use_is_refused_before_anything_starts(
    loadtest: LoadTest, few_photographs: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        taken = listener.getsockname()[1]
        done = loadtest("compare", "--port", taken, "--img_dir", few_photographs)
    _fails(done, f"port {taken} of 127.0.0.1 cannot be used", "--port")


def test_a_comparison_that_cannot_begin_leaves_the_earlier_one_alone(
    loadtest: LoadTest,
    few_photographs: Path,
    tmp_path: Path,
    repeat_of: Callable[..., Window],
    run_of: Callable[..., Run],
) -> None:
    earlier = run_of(["baseline"], [repeat_of("baseline", 1, [10.0] * 100, 1.0)])
    raw_files.write(tmp_path / "out", earlier)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        taken = listener.getsockname()[1]
        loadtest(*("compare", "--port", taken, "--img_dir", few_photographs, "--output_dir", "out"))
    assert raw_files.read(tmp_path / "out") == earlier


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--img_dir", "nowhere"], ["'nowhere' does not exist"]),
        (["--variants", "baselin"], ["did you mean 'baseline'"]),
        (["--config", "none.toml"], ["'none.toml' does not exist"]),
        (["--workloads", "none.onnx"], ["'none.onnx' of --workloads does not exist"]),
    ],
)
def test_bad_input_is_one_line(loadtest: LoadTest, arguments: list[str], words: list[str]) -> None:
    done = loadtest("compare", *arguments)
    _fails(done, *words, code=2)
    assert len(done.stderr.splitlines()) == 1


def test_what_only_the_service_can_refuse_is_a_wrong_command_line_too(
    loadtest: LoadTest, few_photographs: Path, port: int
) -> None:
    given = ("--mean", "1,2", "--std", "1", "--img_dir", few_photographs, "--port", port)
    done = loadtest("compare", "--workloads", "resnet50", "--variants", "baseline", *given)
    _fails(done, "takes one number or three", "got '1,2'", code=2)


def test_an_empty_image_folder_and_a_broken_image_are_told(
    loadtest: LoadTest, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    _fails(loadtest("compare", "--img_dir", "empty"), "holds no image", code=2)
    (tmp_path / "empty" / "broken.jpg").write_bytes(b"no image")
    done = loadtest("run", "--img_dir", "empty")
    _fails(done, "1 of 1 images cannot be used", "--skip_bad_images", code=2)
    assert done.stderr.startswith("empty/broken.jpg: no image of a known format")


def test_scores_may_differ_by_the_tolerance_and_no_more() -> None:
    answers = {"baseline": {"a.jpg": Answer("cat", 0.700, 0.3)}}
    near = {**answers, "pipeline": {"a.jpg": Answer("cat", 0.7009, 0.3)}}
    far = {**answers, "pipeline": {"a.jpg": Answer("cat", 0.7011, 0.3)}}
    agreement = compare_answers(near, 0.001)
    assert agreement.largest_score_difference == pytest.approx(0.0009)
    assert agreement.expected_labels == {"a.jpg": "cat"}
    with pytest.raises(LoadTestError, match=r"a\.jpg: baseline says 'cat' 0\.7000"):
        compare_answers(far, 0.001)


def test_another_decoder_may_tip_a_near_tie_and_nothing_else() -> None:
    """A GPU's decoder gives slightly other pixels than the CPU's."""
    first = {"a.jpg": Answer("cat", 0.40, 0.02), "b.jpg": Answer("cat", 0.9, 0.8)}
    tipped = {"a.jpg": Answer("dog", 0.42, 0.04), "b.jpg": Answer("cat", 0.85, 0.7)}
    answers = {"pipeline": first, "pipeline-gpu": tipped}
    agreement = compare_answers(answers, 0.001, {"pipeline-gpu"}, 0.1)
    assert agreement.tipped_labels == 1
    assert agreement.expected_labels == {"b.jpg": "cat"}
    with pytest.raises(LoadTestError, match=r"a\.jpg: pipeline says 'cat'"):
        compare_answers(answers, 0.1)
    wrong = {**tipped, "b.jpg": Answer("dog", 0.88, 0.7)}
    with pytest.raises(LoadTestError, match=r"b\.jpg: pipeline says 'cat'"):
        compare_answers({"pipeline": first, "pipeline-gpu": wrong}, 0.001, {"pipeline-gpu"}, 0.1)


def test_a_near_tie_is_not_checked_under_load() -> None:
    """Rounding may decide between two classes that are closer than the tolerance."""
    answers = {"baseline": {"a.jpg": Answer("cat", 0.5, 0.0005)}}
    assert compare_answers(answers, 0.001).expected_labels == {}
