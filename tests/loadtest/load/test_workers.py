"""Locust's distributed mode: a real master and real workers, against a real server."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import jsonschema
import psutil
import pytest

from loadtest.errors import LoadTestError
from loadtest.load.clients import Clients
from loadtest.load.images import read_folder
from loadtest.load.joining import work
from loadtest.load.workers import Spread, WorkerPool, is_loopback
from loadtest.measure import single
from loadtest.measure.node_counts import node_counts
from loadtest.progress import Progress
from loadtest.records import raw_files
from loadtest.records.run import CLIENTS
from loadtest.servers.server_process import ServerProcess
from loadtest.settings import LoadSettings

LoadTest = Callable[..., subprocess.CompletedProcess[str]]
SCHEMA = Path(__file__).parents[3] / "docs" / "summary.schema.json"


@pytest.fixture(scope="module")
def photographs(photo_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three photographs."""
    folder = tmp_path_factory.mktemp("three")
    for path in sorted(photo_folder.glob("*-500x3*.jpg"))[:3]:
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


@pytest.fixture(scope="module")
def pool(photographs: Path) -> Iterator[WorkerPool]:
    """A master and two workers, for clients that wait."""
    spread = Spread("127.0.0.1", 0, 2, starts_them=True)
    images = read_folder(photographs)
    with WorkerPool(spread, images, "127.0.0.1", Progress(), is_open=False) as pool:
        yield pool


@pytest.mark.parametrize(("clients", "workers"), [(3, 2), (2, 1)])
def test_every_request_of_every_worker_is_told_as_it_was(
    clients: int, workers: int, pool: WorkerPool, colour_server: int, photographs: Path
) -> None:
    """As many as the server has counted, from the first to the last, and nothing is rounded.

    The second load leaves a worker out, as the windows of a doubling test do.
    """
    load = LoadSettings(
        port=colour_server, request_client=clients, client_processes=workers, request_batch=2
    )
    before = {node: counts.items for node, counts in _counts(colour_server).items()}
    with Clients(load, read_folder(photographs), {}, pool) as users:
        users.start()
        start_s = time.perf_counter()
        users.wait(start_s + 0.3, lambda: None)
        end_s = time.perf_counter()
        records = users.stop(0.0, end_s + 3600)
        facts = users.facts(start_s, end_s)
    served = {node: counts.items - before[node] for node, counts in _counts(colour_server).items()}
    assert set(served.values()) == {2 * len(records)}
    assert not any(record.error for record in records)
    assert sum(fact["clients"] for fact in facts) == clients
    assert {record.worker for record in records} == {str(fact["worker"]) for fact in facts}
    assert len(facts) == workers
    assert any(record.latency_ms != round(record.latency_ms, 3) for record in records)
    assert [r.completed_s for r in records] == sorted(r.completed_s for r in records)
    # Each user has its own number, and sends every image in turn.
    counts = Counter(name for record in records for name in record.image.split(";"))
    assert max(counts.values()) - min(counts.values()) <= 2 * clients
    # On one machine clocks are the same, which the exchanges must find.
    for fact in facts:
        assert abs(fact["clock_offset_ms"]) <= fact["clock_within_ms"]
        assert fact["cpu_percent"] > 0
        assert not fact["lost"]


def _counts(port: int) -> dict:
    return node_counts("127.0.0.1", port)


@pytest.mark.parametrize(
    ("host", "found"), [("localhost", True), ("127.0.0.9", True), ("192.0.2.1", False)]
)
def test_a_name_that_is_another_machine_to_each_is_known(host: str, found: bool) -> None:
    assert is_loopback(host) is found


def test_workers_that_join_make_one_even_open_loop(
    null_server: tuple[int, ServerProcess],
    photographs: Path,
    few_photographs: Path,
    loadtest: LoadTest,
    port: int,
    tmp_path: Path,
) -> None:
    """The record and the report are those of one process, with a row for each worker.

    A worker with other images is refused, and others may join. The clock of one of them is 1000 s
    ahead, where this process may have a time namespace.
    """
    others = read_folder(few_photographs)
    (name,) = {image.name for image in others} - {path.name for path in photographs.iterdir()}
    refusal = f"it has other images than the master ({name}); give both the same files"

    def join() -> None:
        with pytest.raises(LoadTestError, match=re.escape(refusal)):
            work("127.0.0.1", port, 1, others, Progress())
        work("127.0.0.1", port, 1, read_folder(photographs), Progress())

    ahead = ["unshare", "--time", "--monotonic", "1000"]
    is_ahead = subprocess.run([*ahead, "true"], check=False, capture_output=True).returncode == 0
    worker = [sys.executable, "-m", "loadtest", "run", "--worker", f"127.0.0.1:{port}"]
    command = [*(ahead if is_ahead else ()), *worker, "--img_dir", str(photographs)]
    other = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    workers = threading.Thread(target=join)
    workers.start()
    done = loadtest(
        *("run", "--img_dir", photographs, "--port", null_server[0], "--rate", 200),
        *("--arrivals", "constant", "--duration_s", 0.5, "--warmup_s", 0.1),
        *("--master", f"127.0.0.1:{port}", "--workers_expected", 2, "--output_dir", "out"),
    )
    workers.join()
    _, told = other.communicate()
    assert (other.returncode, told.splitlines()[-1]) == (
        0,
        "worker process 1: the master has ended",
    )
    assert done.returncode == 0, done.stderr
    assert f"is refused: {refusal}" in done.stderr
    assert "has joined (2 of 2)" in done.stderr
    assert "The workers' clocks beside the master's are known to" in done.stdout
    run = raw_files.read(tmp_path / "out")
    (window,) = run.workloads[0].windows
    assert len(window.records) == pytest.approx(200 * window.length_s, abs=2)
    assert {record.worker for record in window.records} == {"1", "2"}
    due_s = sorted(r.completed_s - r.latency_ms / 1000 for r in window.records)
    gaps_s = [after - before for before, after in pairwise(due_s)]
    assert gaps_s == pytest.approx([0.005] * len(gaps_s), abs=1e-5)
    offsets_ms = sorted(fact["clock_offset_ms"] for fact in window.details[CLIENTS])
    assert offsets_ms[-1] == pytest.approx(1e6 if is_ahead else 0.0, abs=1000)
    assert window.samples[-1].values["clients_cpu_s"] > 0
    assert [host["host"] for host in run.results["hosts"]] == [1]
    for name in ("report.md", "report.html"):
        assert "Were the clients the limit?" in (tmp_path / "out" / name).read_text()
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    jsonschema.validate(summary, json.loads(SCHEMA.read_text()))


def test_a_lost_worker_ends_the_window_and_is_no_result(
    null_server: tuple[int, ServerProcess],
    photographs: Path,
    loadtest: LoadTest,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    killed: list[psutil.Process] = []

    def kill_one(_: single.RunningServer) -> None:
        if not killed:
            children = psutil.Process().children(recursive=True)
            workers = (it for it in children if "loadtest.load.worker_process" in it.cmdline())
            # Those of the other tests are older.
            killed.append(max(workers, key=psutil.Process.create_time))
            killed[0].kill()

    # It is called in the window, which a warm-up of no length leaves to it.
    monkeypatch.setattr(single.RunningServer, "require_alive", kill_one)
    done = loadtest(
        *("run", "--img_dir", photographs, "--port", null_server[0], "--request_client", 2),
        *("--processes", 2, "--warmup_s", 0, "--duration_s", 60, "--output_dir", "out"),
    )
    assert done.returncode == 3
    assert "ended with exit code -9" in done.stderr
    assert "the load was not the one asked for" in done.stderr
    assert "marks: " in done.stdout
    assert "lost worker" in done.stdout
    run = raw_files.read(tmp_path / "out")
    (window,) = run.workloads[0].windows
    assert not run.complete
    assert window.length_s < 60
    assert sum(bool(told["lost"]) for told in window.details[CLIENTS]) == 1
    assert "**Invalid**: worker " in (tmp_path / "out" / "report.md").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--workers_expected", 2], "give --master, too"),
        (["--master", "h"], "say how many, such as --workers_expected 2"),
        (["--master", ":1", "--workers_expected", 1], "--master takes HOST or HOST:PORT"),
        (["--master", "h", "--workers_expected", 1, "--processes", 2], "start those of this"),
        (["--master", "h", "--workers_expected", 3, "--doubling_pairs", 2], "must be even, got 3"),
        (["--master", "h", "--worker", "h"], "not allowed with argument"),
        (["--processes", 11], "11 processes cannot share --request_client 10"),
        (["--processes", 6, "--doubling_pairs", 2], "12 processes cannot share"),
        (["--processes", 2, "--client_processes", 2], "each worker is one process: leave it out"),
        (["--worker", "h", "--rate", 9], "--rate is for the master to say"),
        (["--worker", "no.such.host.invalid"], "--worker no.such.host.invalid:5557: "),
    ],
)
def test_what_makes_no_distributed_load_is_told(
    words: list[object], message: str, loadtest: LoadTest, photographs: Path
) -> None:
    done = loadtest("run", "--img_dir", photographs, *words)
    assert done.returncode == 2
    assert message in done.stderr
