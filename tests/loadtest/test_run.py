"""`run` and `null_request` against a real server process, with real Locust processes."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import psutil
import pytest

from loadtest import raw_files
from loadtest.clients import Clients, LoadSettings
from loadtest.errors import LoadTestError
from loadtest.gpu import GpuMonitor
from loadtest.images import read_folder
from loadtest.measurement import Window, measure
from loadtest.progress import Progress
from loadtest.server_process import ServerProcess

Serve = Callable[..., AbstractContextManager[ServerProcess]]
LoadTest = Callable[..., subprocess.CompletedProcess[str]]


def test_every_request_of_a_counted_window_is_recorded(
    serve: Serve, loadtest: LoadTest, port: int, few_photographs: Path, tmp_path: Path
) -> None:
    """Two client processes, requests of four images, exactly --total_number requests."""
    with serve(port, "--handler", "null"):
        done = loadtest(
            *("run", "--img_dir", few_photographs, "--host", "localhost", "--port", port),
            *("--request_client", 3, "--client_processes", 2, "--request_batch", 4),
            *("--total_number", 123, "--warmup_s", 0.1, "--output_dir", "out"),
        )
    assert done.returncode == 0, done.stderr
    for heading in ("| QPS |", "| TP50 ms |", "| GPU |"):
        assert heading.strip("| ") in done.stdout
    assert "123 requests" in done.stdout
    run = raw_files.read(tmp_path / "out")
    repeat = run.workloads[0].repeats[0]
    assert len(repeat.records) == 123
    assert repeat.records[-1].completed_s == pytest.approx(repeat.length_s, abs=1e-6)
    names = {path.name for path in few_photographs.iterdir()}
    assert all(set(record.image.split(";")) <= names for record in repeat.records)
    assert all(len(record.image.split(";")) == 4 for record in repeat.records)
    assert not any(record.error for record in repeat.records)
    assert repeat.samples[-1].server_cpu_s is not None
    assert repeat.samples[-1].clients_cpu_s > 0
    text = (tmp_path / "out" / raw_files.RUN_FILE).read_text()
    assert str(tmp_path) not in text


def test_all_workers_of_a_server_are_sampled(
    serve: Serve, loadtest: LoadTest, port: int, few_photographs: Path, tmp_path: Path
) -> None:
    """Whichever worker tells who it is, the processes below the supervisor are counted."""
    with serve(port, "--handler", "null", "--workers", "2") as server:
        workers = psutil.Process(server.pid).children()
        resident_bytes = sum(worker.memory_info().rss for worker in workers)
        done = loadtest(
            *("run", "--img_dir", few_photographs, "--port", port, "--request_client", 4),
            *("--duration_s", 0.5, "--warmup_s", 0.1, "--output_dir", "out"),
        )
    assert done.returncode == 0, done.stderr
    (workload,) = raw_files.read(tmp_path / "out").workloads
    sample = workload.repeats[0].samples[-1]
    assert len(workers) == 2
    assert sample.server_rss_bytes is not None
    assert sample.server_rss_bytes > 0.9 * resident_bytes
    identity = workload.variants[0].server
    assert identity is not None
    assert identity["workers"] == 2
    assert not {"pid", "worker", "supervisor_pid"} & identity.keys()


def _window(port: int, folder: Path, **settings: object) -> Window:
    load = LoadSettings(**{"port": port, "request_client": 2, "warmup_s": 0.05, **settings})  # type: ignore[arg-type]
    with Clients(load, read_folder(folder), {}) as clients:
        return measure(clients, load, None, GpuMonitor(), Progress(), "test", lambda: None)


def test_a_timed_window_holds_all_requests_that_completed_in_it(
    serve: Serve, port: int, few_photographs: Path
) -> None:
    with serve(port, "--handler", "null"):
        window = _window(port, few_photographs, duration_s=0.5)
    times = [record.completed_s for record in window.records]
    assert times == sorted(times)
    assert times[0] >= 0
    assert times[-1] <= window.length_s
    assert window.length_s >= 0.5
    # Shuffled passes send every image as often as any other, give or take one pass a client.
    counts = Counter(record.image for record in window.records)
    assert len(counts) == 4
    assert max(counts.values()) - min(counts.values()) <= 2 * 2


def test_images_without_a_result_are_errors_of_that_image(
    serve: Serve, port: int, few_photographs: Path
) -> None:
    """Bytes behind a good header pass the folder check here only because it is not run again."""
    images = read_folder(few_photographs)
    images[0].path.write_bytes(b"no image any more")
    settings = LoadSettings(
        port=port, request_client=1, request_batch=4, warmup_s=0, duration_s=None, total_number=5
    )
    with (
        serve(port, "--handler", "baseline", "--model", "efficientnet_lite0"),
        Clients(settings, images, {}) as clients,
    ):
        window = measure(clients, settings, None, GpuMonitor(), Progress(), "test", lambda: None)
    assert [record.failed_images for record in window.records] == [1] * 5
    assert all(record.error.startswith("INVALID_IMAGE: ") for record in window.records)


def test_a_label_that_differs_from_the_expected_one_is_an_error(
    serve: Serve, port: int, few_photographs: Path
) -> None:
    images = read_folder(few_photographs)
    settings = LoadSettings(
        port=port, request_client=2, warmup_s=0, duration_s=None, total_number=20
    )
    expected = {image.name: "no such label" for image in images}
    with serve(port, "--handler", "null"), Clients(settings, images, expected) as clients:
        window = measure(clients, settings, None, GpuMonitor(), Progress(), "test", lambda: None)
    assert all("wrong label" in record.error for record in window.records)


def _image_order(seed: int, user: int, image: Path) -> list[int]:
    """The first 12 picks of 4 images, asked in a process because locust patches sockets."""
    code = (
        "import itertools\n"
        "from loadtest.client_process import ClientConfig, Load, Recorder\n"
        f"paths = [{str(image)!r}] * 4\n"
        f"config = ClientConfig('h', 1, paths, [None] * 4, 1, 0, 1, {seed}, 1.0)\n"
        f"order = Load(config, Recorder()).image_order({user})\n"
        "print(*itertools.islice(order, 12))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return [int(pick) for pick in done.stdout.split()]


def test_a_user_sends_every_image_in_turn_in_an_order_that_the_seed_decides(
    few_photographs: Path,
) -> None:
    image = next(few_photographs.iterdir())
    first = _image_order(seed=3, user=0, image=image)
    assert [sorted(first[start : start + 4]) for start in (0, 4, 8)] == [[0, 1, 2, 3]] * 3
    assert _image_order(seed=3, user=0, image=image) == first
    assert _image_order(seed=3, user=1, image=image) != first
    assert _image_order(seed=4, user=0, image=image) != first


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

        def stop_server_once() -> None:
            if clients.completed > 10:
                server.stop()

        with pytest.raises(LoadTestError, match="no longer answers"):
            measure(clients, load, None, GpuMonitor(), Progress(), "test", stop_server_once)


def test_null_request_measures_cpu_time_per_request(
    loadtest: LoadTest, port: int, tmp_path: Path
) -> None:
    done = loadtest(
        *("null_request", "--requests", 2000, "--payload_bytes", 100_000, "--port", port),
        *("--warmup_s", 0.1, "--output_dir", "null"),
    )
    assert done.returncode == 0, done.stderr
    assert "us of server CPU time per request (2000 requests of 100000 bytes)" in done.stdout
    assert float(done.stdout.split()[0]) > 0
    assert len(raw_files.read(tmp_path / "null").workloads[0].repeats[0].records) == 2000
    assert "per request**" in (tmp_path / "null" / "report.md").read_text()


def test_the_load_test_itself_never_imports_locust() -> None:
    """Locust patches sockets; only the client process may import it."""
    code = "import sys, loadtest.cli; sys.exit('locust' in sys.modules or 'gevent' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
