"""`run` and `null_request` against a real server process, with real Locust processes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import pairwise
from pathlib import Path

import cv2
import jsonschema
import numpy as np
import psutil
import pytest

from loadtest.errors import LoadTestError
from loadtest.load.clients import ClientPool, Clients
from loadtest.load.images import LoadImage, read_folder
from loadtest.measure.window import measure_window
from loadtest.progress import Progress
from loadtest.records import raw_files
from loadtest.records.probe import Gpus
from loadtest.records.run import Window
from loadtest.servers.server_process import ServerProcess
from loadtest.settings import LoadSettings

SCHEMA = Path(__file__).parents[3] / "docs" / "summary.schema.json"
Serve = Callable[..., AbstractContextManager[ServerProcess]]
LoadTest = Callable[..., subprocess.CompletedProcess[str]]


def test_a_counted_window_has_every_request_and_samples_of_all_workers(
    null_server: tuple[int, ServerProcess],
    loadtest: LoadTest,
    few_photographs: Path,
    tmp_path: Path,
) -> None:
    """Two client processes, requests of four images, exactly --total_number requests.

    Whichever worker tells who it is, the processes below the supervisor are counted.
    """
    port, server = null_server
    workers = psutil.Process(server.pid).children()
    resident_bytes = sum(worker.memory_info().rss for worker in workers)
    done = loadtest(
        *("run", "--img_dir", few_photographs, "--host", "localhost", "--port", port),
        *("--request_client", 3, "--client_processes", 2, "--request_batch", 4),
        *("--total_number", 123, "--warmup_s", 0.1, "--output_dir", "out"),
    )
    assert done.returncode == 0, done.stderr
    for heading in ("| QPS |", "| TP50 ms |", "| GPU |"):
        assert heading.strip("| ") in done.stdout
    assert "123 requests" in done.stdout
    (workload,) = raw_files.read(tmp_path / "out").workloads
    repeat = workload.windows[0]
    assert len(repeat.records) == 123
    assert repeat.records[-1].completed_s == pytest.approx(repeat.length_s, abs=1e-6)
    names = {path.name for path in few_photographs.iterdir()}
    assert all(set(record.image.split(";")) <= names for record in repeat.records)
    assert all(len(record.image.split(";")) == 4 for record in repeat.records)
    assert not any(record.error for record in repeat.records)
    sample = repeat.samples[-1]
    assert sample.values["server_cpu_s"] is not None
    assert sample.values["clients_cpu_s"] > 0
    assert len(workers) == 2
    assert sample.values["server_rss_bytes"] is not None
    assert sample.values["server_rss_bytes"] > 0.9 * resident_bytes
    identity = workload.variants[0].server
    assert identity is not None
    assert identity["workers"] == 2
    assert not {"pid", "worker", "supervisor_pid"} & identity.keys()
    text = (tmp_path / "out" / raw_files.RUN_FILE).read_text()
    assert str(tmp_path) not in text


def test_an_open_loop_sends_as_planned_and_tells_how_late_it_was(
    null_server: tuple[int, ServerProcess],
    loadtest: LoadTest,
    few_photographs: Path,
    tmp_path: Path,
) -> None:
    """Two processes, 200 requests a second for half a second: 100, each counted by its plan."""
    port, _ = null_server
    done = loadtest(
        *("run", "--img_dir", few_photographs, "--port", port, "--rate", 200),
        *("--arrivals", "constant", "--duration_s", 0.5, "--warmup_s", 0.1),
        *("--client_processes", 2, "--request_batch", 2, "--output_dir", "out"),
    )
    assert done.returncode == 0, done.stderr
    assert "at 200 requests/s; latencies count from the planned times" in done.stdout
    (window,) = raw_files.read(tmp_path / "out").workloads[0].windows
    assert (window.offered_per_s, window.clients) == (200.0, None)
    assert len(window.records) == pytest.approx(200 * window.length_s, abs=2)
    answered = 2 * sum(record.completed_s <= window.length_s for record in window.records)
    # Those that were sent before and answered in it come on top.
    assert answered <= window.images_per_s * window.length_s + 1e-6 <= answered + 100
    due_s = sorted(r.completed_s - r.latency_ms / 1000 for r in window.records)
    gaps_s = [after - before for before, after in pairwise(due_s)]
    assert gaps_s == pytest.approx([0.005] * len(gaps_s), abs=1e-5)
    assert all(0 <= record.lag_ms <= record.latency_ms for record in window.records)
    assert any(record.lag_ms > 0 for record in window.records)
    report = (tmp_path / "out" / "report.md").read_text()
    assert "200 requests a second in an open loop (constant arrivals) from 2 process(es)" in report
    assert "generator's lag: TP50 ms" in report
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    jsonschema.validate(summary, json.loads(SCHEMA.read_text()))
    (row,) = summary["workloads"][0]["variants"]
    assert row["offered_per_s"] == 200.0
    assert row["generator_lag_ms"]["tp50"] <= row["generator_lag_ms"]["tp99"]


def test_a_run_without_one_right_answer_is_no_result(
    colour_server: int, loadtest: LoadTest, tmp_path: Path
) -> None:
    """The server decodes no TIFF unless it is told to; what was measured is kept."""
    (tmp_path / "tiffs").mkdir()
    assert cv2.imwrite(str(tmp_path / "tiffs" / "a.tiff"), np.zeros((8, 8, 3), np.uint8))
    done = loadtest(
        *("run", "--img_dir", "tiffs", "--port", colour_server, "--total_number", 5),
        *("--request_client", 1, "--warmup_s", 0, "--output_dir", "out"),
    )
    assert done.returncode == 3
    assert "error: none of 5 requests got a right answer, the first: InvalidImage: " in done.stderr
    (window,) = raw_files.read(tmp_path / "out").workloads[0].windows
    assert [record.failed_images for record in window.records] == [1] * 5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--arrivals", "poisson"], "--arrivals says when the requests of --rate come"),
        (["--rate", "50", "--total_number", "100"], "take --duration_s, such as --duration_s 2"),
        (["--rate", "50", "--request_client", "3"], "not allowed with argument"),
        (["--rate", "0"], "--rate: must be above 0"),
        (["--rate", "9", "--arrivals", "poison"], "did you mean 'poisson'?"),
    ],
)
def test_what_makes_no_open_loop_is_told(
    words: list[str], message: str, loadtest: LoadTest
) -> None:
    done = loadtest("run", *words)
    assert done.returncode == 2
    assert message in done.stderr


@pytest.fixture(scope="module")
def client_pool() -> Iterator[ClientPool]:
    """A client process for loads that end as they should."""
    with ClientPool(1) as pool:
        yield pool


class _Server:
    """One whose processes are not sampled."""

    pid = None

    def require_alive(self) -> None:
        """It is."""


def _window(
    pool: ClientPool,
    port: int,
    images: Sequence[LoadImage],
    expected: Mapping[str, str],
    **settings: object,
) -> Window:
    load = LoadSettings(port=port, **settings)  # type: ignore[arg-type]
    with Clients(load, images, expected, pool) as clients:
        return measure_window("v", 1, clients, load, _Server(), Gpus(), Progress(), "test")


def test_a_timed_window_holds_all_requests_that_completed_in_it(
    client_pool: ClientPool, null_server: tuple[int, ServerProcess], few_photographs: Path
) -> None:
    images = read_folder(few_photographs)
    settings = {"request_client": 2, "warmup_s": 0.05, "duration_s": 0.3}
    window = _window(client_pool, null_server[0], images, {}, **settings)
    times = [record.completed_s for record in window.records]
    assert times == sorted(times)
    assert times[0] >= 0
    assert times[-1] <= window.length_s
    assert window.length_s >= 0.3
    # Shuffled passes send every image as often as any other, give or take one pass a client.
    counts = Counter(record.image for record in window.records)
    assert len(counts) == 4
    assert max(counts.values()) - min(counts.values()) <= 2 * 2


def test_images_without_a_result_are_errors_of_that_image(
    client_pool: ClientPool, colour_server: int, few_photographs: Path
) -> None:
    """Bytes behind a good header pass the folder check here only because it is not run again."""
    images = read_folder(few_photographs)
    images[0].path.write_bytes(b"no image any more")
    counted = {"request_client": 1, "warmup_s": 0, "duration_s": None, "total_number": 5}
    window = _window(client_pool, colour_server, images, {}, request_batch=4, **counted)
    assert [record.failed_images for record in window.records] == [1] * 5
    assert all(record.error.startswith("INVALID_IMAGE: ") for record in window.records)


def test_a_label_that_differs_from_the_expected_one_is_an_error(
    client_pool: ClientPool, null_server: tuple[int, ServerProcess], few_photographs: Path
) -> None:
    images = read_folder(few_photographs)
    expected = {image.name: "no such label" for image in images}
    counted = {"request_client": 2, "warmup_s": 0, "duration_s": None, "total_number": 20}
    window = _window(client_pool, null_server[0], images, expected, **counted)
    assert all("wrong label" in record.error for record in window.records)


def test_doubling_the_client_processes_has_a_row_for_each_number(
    null_server: tuple[int, ServerProcess],
    loadtest: LoadTest,
    few_photographs: Path,
    tmp_path: Path,
) -> None:
    done = loadtest(
        *("run", "--img_dir", few_photographs, "--port", null_server[0], "--request_client", 3),
        *("--client_processes", 1, "--doubling_pairs", 2, "--warmup_s", 0, "--duration_s", 0.2),
        *("--output_dir", "out"),
    )
    assert done.returncode == 0, done.stderr
    (workload,) = raw_files.read(tmp_path / "out").workloads
    one, two = "null, 1 client process", "null, 2 client processes"
    assert [variant.name for variant in workload.variants] == [one, two]
    # Each goes first in one of the pairs.
    assert [(it.variant, it.repeat) for it in workload.windows] == [
        (one, 1),
        (two, 1),
        (two, 2),
        (one, 2),
    ]
    workers = [{record.worker for record in window.records} for window in workload.windows]
    assert workers == [{"1"}, {"1", "2"}, {"1", "2"}, {"1"}]
    assert "2 client processes were served" in done.stdout
    assert "| null, 2 client processes |" in (tmp_path / "out" / "report.md").read_text()


_LATE_READER = """
import socket, time
import gevent
from loadtest.load.users import LoopClock
clock = LoopClock()
near, far = socket.socketpair()
def read():
    near.recv(1)
    print(time.perf_counter() - clock.ready_s > 0.05)
reader = gevent.spawn(read)
gevent.sleep(0)
def occupy():
    far.send(b"x")
    end_s = time.perf_counter() + 0.05
    while time.perf_counter() < end_s:
        pass
gevent.spawn(occupy)
reader.join()
"""


def test_a_reply_that_came_while_the_loop_was_busy_was_there_before() -> None:
    """In a process of its own because locust patches sockets."""
    command = [sys.executable, "-c", _LATE_READER]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


_IMAGE_ORDERS = """
import itertools, sys
from loadtest.load.client_protocol import ClientConfig
from loadtest.load.users import Load
from loadtest.settings import LoadSettings
for seed, user in ((3, 0), (3, 0), (3, 1), (4, 0)):
    config = ClientConfig(LoadSettings(seed=seed), [sys.argv[1]] * 4, [None] * 4, 1, 0)
    print(*itertools.islice(Load(config).image_order(user), 12))
"""


def test_a_user_sends_every_image_in_turn_in_an_order_that_the_seed_decides(
    few_photographs: Path,
) -> None:
    """The first 12 picks of 4 images, in a process of its own because locust patches sockets."""
    image = next(few_photographs.iterdir())
    command = [sys.executable, "-c", _IMAGE_ORDERS, str(image)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    first, again, other_user, other_seed = (
        [int(pick) for pick in line.split()] for line in done.stdout.splitlines()
    )
    assert [sorted(first[start : start + 4]) for start in (0, 4, 8)] == [[0, 1, 2, 3]] * 3
    assert again == first
    assert other_user != first
    assert other_seed != first


def test_no_server_is_one_line(loadtest: LoadTest, port: int, few_photographs: Path) -> None:
    done = loadtest("run", "--img_dir", few_photographs, "--port", port)
    assert done.returncode == 1
    assert done.stderr.startswith(
        f"loadtest: error: nothing accepts connections at localhost:{port}"
    )
    assert len(done.stderr.splitlines()) == 1


def test_a_lost_server_ends_the_load_instead_of_a_busy_loop(
    serve: Serve, port: int, few_photographs: Path
) -> None:
    load = LoadSettings(port=port, request_client=2, warmup_s=0.05, duration_s=60)
    with (
        serve(port, "--handler", "null") as server,
        Clients(load, read_folder(few_photographs), {}) as clients,
    ):

        class Stopped(_Server):
            def require_alive(self) -> None:
                if clients.completed > 10:
                    server.stop()

        with pytest.raises(LoadTestError, match="no longer answers"):
            measure_window("v", 1, clients, load, Stopped(), Gpus(), Progress(), "test")


def test_null_request_measures_cpu_time_per_request(
    loadtest: LoadTest, port: int, tmp_path: Path
) -> None:
    done = loadtest(
        *("null_request", "--requests", 500, "--payload_bytes", 100_000, "--port", port),
        *("--warmup_s", 0.1, "--output_dir", "null"),
    )
    assert done.returncode == 0, done.stderr
    assert "us of server CPU time per request (500 requests of 100000 bytes)" in done.stdout
    assert float(done.stdout.split()[0]) > 0
    assert len(raw_files.read(tmp_path / "null").workloads[0].windows[0].records) == 500
    assert "per request**" in (tmp_path / "null" / "report.md").read_text()


def _imported_by(code: str) -> set[str]:
    """The top-level modules that a process has imported after that code."""
    command = f"{code}\nimport sys; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", command], capture_output=True, text=True, check=True
    )
    return set(done.stdout.splitlines()[-1].split())


def test_the_load_test_itself_never_imports_locust() -> None:
    """Locust patches sockets; only the client process may import it."""
    imported = _imported_by(
        "import loadtest.commands, loadtest.measure.gpu_session\n"
        "import loadtest.report.pages, tests.robustness.command_line"
    )
    assert "matplotlib" in imported  # the report's, so these are all modules of all commands
    assert not imported & {"locust", "gevent"}


@pytest.mark.parametrize(
    ("arguments", "unneeded"),
    [
        (["--help"], {"matplotlib", "scipy", "onnx", "numpy", "cv2", "thriftpy2", "psutil"}),
        (["compare", "--variants", "none"], {"matplotlib", "scipy", "onnx"}),
    ],
)
def test_a_refused_command_line_does_not_wait_for_imports(
    arguments: list[str], unneeded: set[str]
) -> None:
    imported = _imported_by(
        f"from loadtest.command_line import main\ntry: main({arguments})\nexcept SystemExit: pass"
    )
    assert "argparse" in imported
    assert not imported & unneeded
