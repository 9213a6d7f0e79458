"""Real server processes, real load-test processes, and hand-made measured runs."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from loadtest.command_line import main
from loadtest.load.images import write_photo_set
from loadtest.processes.child_process import ChildProcess
from loadtest.records.run import (
    Record,
    Run,
    Sample,
    VariantRun,
    Window,
    WorkloadRun,
)
from loadtest.servers.server_process import ServerProcess
from tests.commands import run_here
from tests.ports import free_port
from tests.robustness.colour_model import ColourModel, write_colour_model
from tests.robustness.server_under_test import ServerUnderTest

ROOT = Path(__file__).parents[2]
FAKE_SERVICE = Path(__file__).with_name("fake_service.py")
READY_TIMEOUT_S = 120


@pytest.fixture
def port() -> int:
    """A port of 127.0.0.1 that is free now, as are the next ones."""
    return free_port()


@pytest.fixture(scope="session")
def photo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The photo set."""
    folder = tmp_path_factory.mktemp("photos")
    write_photo_set(folder)
    return folder


@pytest.fixture(scope="session")
def colour_model(tmp_path_factory: pytest.TempPathFactory) -> ColourModel:
    """A model that takes no time."""
    return write_colour_model(tmp_path_factory.mktemp("colours"))


@pytest.fixture(scope="session")
def colour_server(colour_model: ColourModel) -> Iterator[int]:
    """The port of a server of that model; it must end as an operator expects."""
    port = free_port()
    arguments = ["--handler", "pipeline", "--calibrate", "off", *colour_model.arguments()]
    with ServerUnderTest(arguments, port) as server:
        server.wait_ready()
        yield port
        assert server.terminate() == 0


@pytest.fixture
def few_photographs(photo_folder: Path, tmp_path: Path) -> Path:
    """A folder with four photographs."""
    folder = tmp_path / "few"
    folder.mkdir()
    for path in sorted(photo_folder.glob("*-500x3*.jpg"))[:4]:
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


@contextmanager
def _running(port: int, *arguments: str) -> Iterator[ServerProcess]:
    command = [sys.executable, "-m", "service", *arguments, "--port", str(port)]
    with ServerProcess(command, "the server", READY_TIMEOUT_S) as server:
        server.wait_ready()
        yield server
        server.stop()


@pytest.fixture
def serve() -> Callable[..., object]:
    """A context manager that runs the real service and stops it as an operator would."""
    return _running


@pytest.fixture(scope="session")
def null_server() -> Iterator[tuple[int, ServerProcess]]:
    """A server with two workers that answer at once, and its port."""
    port = free_port()
    with _running(port, "--handler", "null", "--workers", "2") as server:
        yield port, server


def _environment() -> dict[str, str]:
    """The environment of a load-test process: this checkout is importable."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "agg"}


@pytest.fixture
def loadtest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a command of the load test to its end, in an empty folder and in this process.

    `loadtest_process` runs it in one of its own.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return partial(run_here, main)


@pytest.fixture
def loadtest_process(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `python -m loadtest` to its end, in an empty folder."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "loadtest", *map(str, arguments)],
            cwd=tmp_path,
            env=_environment(),
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    return run


@pytest.fixture
def start_loadtest(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `python -m loadtest`; it is killed at the end of the test."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "loadtest", *map(str, arguments)],
            cwd=tmp_path,
            env=_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def fake_service() -> Callable[..., str]:
    """The --launch_prefix that puts a misbehaving server in front of the real command."""
    return lambda *mode: shlex.join([sys.executable, str(FAKE_SERVICE), *map(str, mode)])


@pytest.fixture
def start_child() -> Iterator[Callable[[str], tuple[ChildProcess, Callable[[], str | None]]]]:
    """Starts Python code in a child process; gives the child and a function for its next line."""
    children: list[ChildProcess] = []

    def start(code: str) -> tuple[ChildProcess, Callable[[], str | None]]:
        child = ChildProcess([sys.executable, "-c", code], "child")
        children.append(child)
        return child, lambda: child.next_line(time.monotonic() + 60)

    yield start
    for child in children:
        child.close()


def _samples(
    length_s: float, *, server_cores: float = 1.0, foreign_cores: float = 0.0
) -> list[Sample]:
    """Two samples of a window with constant use of the processors."""
    return [
        Sample(
            at_s,
            {
                "server_cpu_s": 100 + server_cores * at_s,
                "server_rss_bytes": 512 * 2**20,
                "clients_cpu_s": 10 + 0.1 * at_s,
                "own_cpu_s": 1 + 0.05 * at_s,
                "machine_busy_s": 1000 + (server_cores + 0.15 + foreign_cores) * at_s,
                "machine_steal_s": 5.0,
                "gpu_percents": [],
                "gpu_memory_bytes": [],
            },
        )
        for at_s in (0.0, length_s)
    ]


def _repeat_of(
    variant: str,
    number: int,
    latencies_ms: list[float],
    length_s: float,
    foreign_cores: float = 0.0,
) -> Window:
    """A repeat with the given latencies, its requests evenly spread."""
    n = len(latencies_ms)
    records = [
        Record(round((i + 1) * length_s / n, 6), latency, f"photo-{i % 3}.jpg", 0, "")
        for i, latency in enumerate(latencies_ms)
    ]
    return Window(
        variant, number, length_s, _samples(length_s, foreign_cores=foreign_cores), records
    )


def _run_of(variants: list[str], repeats: list[Window], clients: int = 10) -> Run:
    """A run of one workload with these repeats."""
    server = {
        "handler": "baseline",
        "engine": "onnxruntime",
        "precision": "fp32",
        "model": "model.onnx",
        "model_sha256": "ab" * 32,
        "config_sha256": "cd" * 32,
        "versions": {"onnxruntime": "1.0"},
        "settings": {"lock": "on"},
    }
    workload = WorkloadRun(
        name="tiny",
        model="model.onnx",
        model_sha256="ab" * 32,
        engine="onnxruntime",
        precision="fp32",
        agreement={
            "images": 3,
            "distinct_labels": 2,
            "score_tolerance": 0.001,
            "largest_score_difference": 1e-6,
            "labels_checked_under_load": 3,
            "expected_labels": {},
        },
        variants=[
            VariantRun(name, f"what {name} is", None if name == "in-process" else server)
            for name in variants
        ],
        windows=repeats,
    )
    return Run(
        kind="compare",
        command="python -m loadtest compare",
        started="2026-01-02T03:04:05Z",
        source={"commit": "0" * 40, "dirty": False},
        machine={
            "cpu_model": "A processor",
            "cpu_cores": 2,
            "cpu_cores_usable": 2,
            "memory_bytes": 8 * 2**30,
            "kernel": "Linux 6",
            "architecture": "x86_64",
            "python": "3.11.0",
            "gpus": "n/a",
        },
        versions={"locust": "2.0"},
        settings={
            "request_client": clients,
            "request_batch": 1,
            "client_processes": 1,
            "duration_s": 1.0,
            "total_number": None,
            "warmup_s": 0.5,
            "repeats": max(window.repeat for window in repeats),
        },
        images=[{"name": "photo-0.jpg", "sha256": "00", "size_bytes": 70_000}],
        workloads=[workload],
    )


@pytest.fixture(scope="session")
def samples() -> Callable[..., list[Sample]]:
    """Makes the samples of a window."""
    return _samples


@pytest.fixture(scope="session")
def repeat_of() -> Callable[..., Window]:
    """Makes a repeat from latencies."""
    return _repeat_of


@pytest.fixture(scope="session")
def run_of() -> Callable[..., Run]:
    """Makes a run from repeats."""
    return _run_of
