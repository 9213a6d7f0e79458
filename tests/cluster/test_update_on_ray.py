"""Rolling updates of a real server on a real Ray, under load."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import psutil
import pytest

from service.client import Client
from tests.cluster.needs import needs_ray
from tests.image_models import save_linear_classifier
from tests.ports import free_port
from tests.robustness.checking_clients import RIGHT
from tests.robustness.colour_model import LABELS, SIDE, encoded, write_colour_model
from tests.waiting import wait_until

pytestmark = needs_ray

TIMEOUT_S = 240
REPLICAS = 2


class Updated:
    """A server whose replicas are updated, its cluster, and the files that updates need."""

    def __init__(self, folder: Path, address: str, port: int) -> None:
        self.folder = folder
        self.port = port
        self._address = address

    def command(self, name: str, *words: object) -> list[str]:
        given = [*map(str, words)]
        return [sys.executable, "-m", "cluster", name, "--cluster", self._address, *given]

    def run(self, name: str, *words: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(name, *words), capture_output=True, text=True, timeout=TIMEOUT_S
        )

    def update(self, model: str, *words: object) -> subprocess.CompletedProcess[str]:
        return self.run("update", "--model", self.folder / model, *words)

    def model(self) -> str:
        with Client(port=self.port, call_timeout_s=TIMEOUT_S) as client:
            return client.server_info().model

    def failing_backends(self, before: str) -> Path:
        """A file for --backends with which no replica can start, as only they find."""
        path = self.folder / "failing.py"
        code = f"    {before}\n    raise RuntimeError('no such device')\n"
        path.write_text("import sys\nif 'ray' in sys.modules:\n" + code)
        return path

    def begun(self, model: str) -> subprocess.Popen[str]:
        """An update that has replaced one replica; its stderr goes on."""
        words = self.command("update", "--model", self.folder / model)
        process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
        assert process.stderr
        said = []
        for line in process.stderr:
            said.append(line)
            if "1 of 2 replicas" in line:
                return process
        raise AssertionError("".join(said))

    def copy(self, name: str) -> str:
        shutil.copy(self.folder / "colours.onnx", self.folder / name)
        return name


@pytest.fixture(scope="module")
def updated() -> Iterator[Updated]:
    from tests.cluster_runs.ray_nodes import RayNodes
    from tests.cluster_runs.served_cluster import ServedCluster

    # A short path: sockets of Ray's lie there.
    with TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary)
        colours = write_colour_model(folder)
        confused = np.roll(np.eye(3, dtype=np.float32) * 20, 1, axis=1)
        save_linear_classifier(folder / "confused.onnx", confused, SIDE)
        (folder / "photos").mkdir()
        for label in LABELS:
            (folder / "photos" / f"{label}.png").write_bytes(encoded(label, 40, 30, ".png"))
        arguments = ["--handler", "pipeline", *colours.arguments(), "--calibrate", "off"]
        # Calls of a few clients wait as long as they have to.
        arguments += ["--max-queue-ms", "0", "--default-timeout-ms", "0"]
        port = free_port()
        with RayNodes(folder, port + 1, cpus=1, head_cpus=REPLICAS + 1) as nodes:
            nodes.start_head()
            with ServedCluster(nodes, arguments, REPLICAS, [port], folder) as cluster:
                cluster.start()
                yield Updated(folder, nodes.address, port)
                assert cluster.stop() == [0]


@pytest.fixture
def photos(updated: Updated) -> tuple[str, Path]:
    return "--canary-images", updated.folder / "photos"


@pytest.fixture(autouse=True)
def _no_call_fails(updated: Updated) -> Iterator[None]:
    """Each test runs under the load of clients that know the answer to each of their images."""
    from tests.cluster_runs.load import ClusterLoad

    load = ClusterLoad([updated.port], 2, seed=1, timeout_ms=TIMEOUT_S * 1000)
    with load:
        yield
    assert load.counts[RIGHT] > 0
    assert set(load.counts) == {RIGHT}, load.mistakes


def test_a_good_model_goes_out(updated: Updated, photos: tuple[str, Path]) -> None:
    name = updated.copy("second.onnx")
    done = updated.update(name, *photos)
    assert done.returncode == 0, done.stderr
    assert "3 of 3 images have the same best label as before" in done.stderr
    assert "2 of 2 replicas run the new release" in done.stderr
    assert updated.model() == name
    told = json.loads(updated.run("status", "--json").stdout)["replicas"]
    assert len(told) == REPLICAS
    assert len({one["release"] for one in told}) == 1
    assert {one["state"] for one in told} == {"ready"}


def test_a_model_that_answers_otherwise_comes_back(
    updated: Updated, photos: tuple[str, Path]
) -> None:
    before = updated.model()
    done = updated.update("confused.onnx", *photos)
    assert done.returncode == 1
    assert "rolled back: 0 of 3 images have the same best label as before" in done.stderr
    assert updated.model() == before


def test_a_model_that_cannot_be_read_is_refused_before_a_replica_starts(updated: Updated) -> None:
    before = updated.model()
    (updated.folder / "broken.onnx").write_bytes(b"no model")
    done = updated.update("broken.onnx")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "broken.onnx" in line
    assert updated.model() == before


def test_what_only_a_replica_finds_comes_back_after_one_start(updated: Updated) -> None:
    before = updated.model()
    starts = updated.folder / "starts"
    done = updated.run(
        "update", "--backends", updated.failing_backends(f"open({str(starts)!r}, 'a').write('1')")
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: rolled back: release ")
    assert "no such device" in last
    assert starts.read_text() == "1"
    assert updated.model() == before


def test_a_killed_update_whose_release_cannot_start_is_no_hindrance(updated: Updated) -> None:
    """None of its replicas can be asked what it is."""
    words = updated.command("update", "--backends", updated.failing_backends("pass"))
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        release = process.stderr.readline().split()[-1]
        wait_until(lambda: _runs(f"ServeReplica:thriftpipe-{release}"))
        process.kill()
    name = updated.copy("sixth.onnx")
    done = updated.update(name)
    assert done.returncode == 0, done.stderr
    assert "was cut off" in done.stderr
    assert updated.model() == name


def _runs(name: str) -> bool:
    commands = (one.info["cmdline"] or () for one in psutil.process_iter(["cmdline"]))
    return any(name in " ".join(words) for words in commands)


def test_an_update_that_is_killed_is_rolled_back_by_the_next(updated: Updated) -> None:
    first, second = updated.copy("third.onnx"), updated.copy("fourth.onnx")
    with updated.begun(first) as process:
        process.kill()
    done = updated.update(second)
    assert done.returncode == 0, done.stderr
    assert "was cut off; rolling it back" in done.stderr
    assert updated.model() == second


def test_sigterm_rolls_back(updated: Updated) -> None:
    before = updated.model()
    with updated.begun(updated.copy("fifth.onnx")) as process:
        assert process.stderr
        process.send_signal(signal.SIGTERM)
        rest = process.stderr.read()
    assert process.returncode == 1, rest
    assert "rolling back: 2 replicas of the old release" in rest
    assert rest.splitlines()[-1] == "error: rolled back: interrupted; the old release serves"
    assert updated.model() == before


def test_what_cannot_be_rolled_back_costs_no_replica(updated: Updated) -> None:
    before = updated.folder / updated.model()
    both = re.compile(r"1 ready replicas of release \w+ \(old\) and 1 of \w+ \(new\) serve")
    with updated.begun(updated.copy("seventh.onnx")) as process:
        assert process.stderr
        process.send_signal(signal.SIGINT)
        assert any("rolling back" in line for line in process.stderr)
        process.send_signal(signal.SIGINT)
        # Further ones do not hide what has come of it.
        process.send_signal(signal.SIGTERM)
        rest = process.stderr.read()
    assert process.returncode == 4, rest
    (last,) = rest.splitlines()
    assert last.startswith("error: interrupted; and not rolled back: interrupted. ")
    assert both.search(last)
    # The next one begins with what this one has left.
    with updated.begun(updated.copy("eighth.onnx")) as process:
        assert process.stderr
        # No replica of the old release can start from now on.
        before.rename(updated.folder / "away.onnx")
        process.send_signal(signal.SIGTERM)
        rest = process.stderr.read()
    assert process.returncode == 4, rest
    assert "Traceback" not in rest
    last = rest.splitlines()[-1]
    assert re.search(rf"and not rolled back: release \w+ does not .*{before.name}", last)
    assert both.search(last)
    (updated.folder / "away.onnx").rename(before)
    name = updated.copy("ninth.onnx")
    done = updated.update(name)
    assert done.returncode == 0, done.stderr
    assert "was cut off; rolling it back" in done.stderr
    assert updated.model() == name


def test_where_no_server_runs_there_is_nothing_to_update(updated: Updated) -> None:
    words = [*updated.command("status")]
    words[words.index("--cluster") + 1] = "127.0.0.1:9"
    done = subprocess.run(words, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 3
    assert "Ray cannot be reached there" in done.stderr
