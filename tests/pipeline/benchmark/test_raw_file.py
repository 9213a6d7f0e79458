"""`from_raw_file`: any function under load."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest

from pipeline import PipelineInputError
from pipeline.benchmark.raw_file import from_raw_file
from pipeline.image_files import read_images
from service.errors import ConfigurationError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for index in range(7):
        (tmp_path / f"{index}.JPG").write_bytes(bytes([index]))
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "7.jpeg").write_bytes(b"\x07")
    (tmp_path / "readme.txt").write_text("no image")
    return tmp_path


class Seen:
    """A function that notes what it gets; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.images: Counter[bytes] = Counter()
        self.sizes: Counter[int] = Counter()

    def __call__(self, images: list[tuple[str, bytes]]) -> None:
        with self._lock:
            self.images.update(data for _, data in images)
            self.sizes[len(images)] += 1


def test_so_many_images_are_sent_in_requests_of_that_size(folder: Path) -> None:
    seen = Seen()
    result = from_raw_file(seen, folder, num_clients=3, request_batch=4, total_number=50)
    warm_up = 5 * 3 * 4
    assert seen.images.total() == 50 + warm_up
    assert seen.sizes == {4: 12 + warm_up // 4, 2: 1}
    assert set(seen.images) == {bytes([index]) for index in range(8)}
    assert (result["num_clients"], result["total_number"], result["failed"]) == (3, 50, {})
    assert result["throughput::qps"] > 0
    assert result["latency::TP50"] <= result["latency::TP90"] <= result["latency::TP99"]


def test_without_preload_every_file_is_sent_once(folder: Path) -> None:
    seen = Seen()
    result = from_raw_file(seen, folder, num_clients=2, request_batch=3, num_preload=0)
    assert result["total_number"] == 8
    assert set(seen.images.values()) == {1}


def test_each_client_may_have_a_function_of_its_own(folder: Path) -> None:
    several = [Seen(), Seen()]
    from_raw_file(several, folder, num_clients=2, total_number=200, recursive=False)
    assert sum(seen.images.total() for seen in several) == 200 + 10
    assert bytes([7]) not in several[0].images
    with pytest.raises(PipelineInputError, match="one for each of the 3 clients; got 2"):
        from_raw_file(several, folder, num_clients=3)


def test_an_exception_fails_the_images_of_its_request_alone(folder: Path) -> None:
    def odd_fails(images: list[tuple[str, bytes]]) -> None:
        if images[0][1][0] % 2:
            raise RuntimeError("odd")

    result = from_raw_file(odd_fails, folder, num_clients=2, total_number=300)
    assert set(result["failed"]) == {"RuntimeError: odd"}
    assert 0 < result["failed"]["RuntimeError: odd"] < 300

    def fails(_: list[tuple[str, bytes]]) -> None:
        raise RuntimeError("always")

    with pytest.raises(PipelineInputError, match="every request has failed: RuntimeError: always"):
        from_raw_file(fails, folder, num_clients=2, total_number=10)


INTERRUPTED = """
import os, signal, sys
from itertools import count
from pipeline.benchmark.raw_file import from_raw_file

def interrupts(_):
    if next(calls) == 100:
        os.kill(os.getpid(), signal.SIGINT)

calls = count(1)
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    from_raw_file(interrupts, sys.argv[1], num_clients=2, total_number=10**12)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_ctrl_c_ends_the_clients(folder: Path) -> None:
    """In a process of its own, which ends only when they have."""
    command = [sys.executable, "-c", INTERRUPTED, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["interrupted"]), done.stderr


def test_what_cannot_be_measured_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"none of \.png"):
        from_raw_file(Seen(), folder, ext=[".png"])
    with pytest.raises(PipelineInputError, match="num_clients = 0"):
        from_raw_file([], folder, num_clients=0)


def test_images_are_taken_evenly_from_first_to_last(folder: Path) -> None:
    files = sorted(folder.glob("*.JPG"))
    assert [data for _, data in read_images(files, 3)] == [b"\x00", b"\x02", b"\x04"]
