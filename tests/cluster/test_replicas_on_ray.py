"""Replicas on a real Ray, started by the server itself."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.request import urlopen

import pytest

from service.client import Client
from service.handlers.warm_up import sample_jpeg
from tests.cluster.needs import needs_ray
from tests.serving import TIMEOUT_S, ServerProcess
from tests.waiting import wait_until

pytestmark = needs_ray

_REPLICAS = 2


class Served:
    """A server process with replicas, and all lines of its log."""

    def __init__(self, process: ServerProcess) -> None:
        self.process = process
        self.port = process.port()
        self._lines: list[str] = process.log.splitlines(keepends=True)
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.process.stderr
        for line in self.process.process.stderr:
            with self._changed:
                self._lines.append(line)
                self._changed.notify_all()

    def lines(self, *texts: str, count: int = 1) -> list[str]:
        """Those that hold all these texts, once there are so many."""
        with self._changed:
            found: list[str] = []

            def there() -> bool:
                found[:] = [line for line in self._lines if all(text in line for text in texts)]
                return len(found) >= count

            assert self._changed.wait_for(there, TIMEOUT_S), "".join(self._lines)
            return found

    def stop(self) -> int:
        self.process.process.send_signal(signal.SIGTERM)
        code = self.process.process.wait(TIMEOUT_S)
        self._thread.join(TIMEOUT_S)
        return code


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty one, whose user says nothing of Ray's token."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("home")
        patch.setenv("HOME", str(folder))
        for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
            patch.delenv(name, raising=False)
        yield folder


@pytest.fixture(scope="module")
def served(home: Path) -> Iterator[Served]:
    del home
    arguments = ["-m", "service", "--handler", "null", "--port", "0", "--cluster", "local"]
    arguments += ["--replicas", str(_REPLICAS), "--access-log", "--log-format", "json"]
    arguments += ["--metrics-port", "0"]
    with closing(ServerProcess(arguments)) as process:
        started = Served(process)
        yield started
        if process.process.poll() is None:
            started.stop()


@pytest.fixture
def client(served: Served) -> Iterator[Client]:
    with Client(port=served.port) as client:
        yield client


def _wait_for_workers(client: Client, without: int = 0) -> list[int]:
    """The pids of all replicas, once there are as many as there are to be."""
    pids: list[int] = []

    def are_there() -> bool:
        pids[:] = [one.pid for one in client.stats().workers if not one.why_not_ready]
        return len(pids) == _REPLICAS and without not in pids

    wait_until(are_there)
    return pids


def test_each_replica_is_a_process_of_its_own_on_a_node_of_rays(client: Client) -> None:
    pids = _wait_for_workers(client)
    assert len(set(pids)) == _REPLICAS
    info = client.server_info()
    assert info.pid in pids
    assert info.workers == _REPLICAS
    assert info.settings["replicas"].startswith("2 (--replicas 2 on the Ray cluster local)")
    assert " at 127.0.0.1:" in info.settings["node"]
    assert client.health().ready


def test_a_request_has_one_id_in_the_log_of_both_sides(served: Served, client: Client) -> None:
    trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
    client.classify(sample_jpeg(), traceparent=f"00-{trace_id}-00f067aa0ba902b7-01")
    own, of_replica = served.lines("infer_images", trace_id, count=2)
    assert {"(ServeReplica" in line for line in (own, of_replica)} == {True, False}
    own = next(line for line in (own, of_replica) if "(ServeReplica" not in line)
    assert json.loads(own)["trace_id"] == trace_id
    # A client that sends none gets one from the front end.
    connection = Client(port=served.port)
    connection.classify(sample_jpeg())
    connection.close()


def test_http_tells_of_the_front_end_and_of_each_replica(served: Served) -> None:
    [line] = served.lines("metrics on http://")
    url = json.loads(line)["message"].removeprefix("metrics on ").removesuffix("/metrics")

    def get(page: str) -> str:
        with urlopen(f"{url}/{page}", timeout=TIMEOUT_S) as answer:  # noqa: S310 (http)
            return str(answer.read().decode())

    assert get("readyz")
    assert json.loads(get("info"))["settings"]["replicas"].startswith("2 ")
    metrics = get("metrics")
    assert "thriftpipe_ready_workers 2.0" in metrics


def test_no_call_is_lost_with_a_replica_and_it_is_replaced(client: Client) -> None:
    first, _ = _wait_for_workers(client)
    outcomes: list[str] = []
    is_over = threading.Event()

    def call_on() -> None:
        while not is_over.is_set():
            outcomes.append(client.classify(sample_jpeg()).label)

    threads = [threading.Thread(target=call_on) for _ in range(4)]
    for thread in threads:
        thread.start()
    os.kill(first, signal.SIGKILL)
    _wait_for_workers(client, without=first)
    is_over.set()
    for thread in threads:
        thread.join(TIMEOUT_S)
    assert set(outcomes) == {"tench"}
    assert client.stats().worker_restarts == 1


def test_its_token_is_for_nobody_else_and_a_file_is_not_left(
    served: Served, home: Path, tmp_path: Path
) -> None:
    assert not [*home.rglob("*token*")]
    commands = [" ".join(one.cmdline()) for one in served.process.left_behind()]
    found = next(filter(None, (re.search(r"--gcs-address=(\S+)", one) for one in commands)))
    arguments = ["-m", "service", "--handler", "null", "--port", "0", "--cluster", found[1]]
    for environment in ({}, {"RAY_AUTH_MODE": "token"}):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HOME", str(tmp_path))
            for name, value in environment.items():
                patch.setenv(name, value)
            with closing(ServerProcess(arguments)) as other:
                assert other.wait() == 2
        assert "the cluster wants Ray's token" in other.log
        assert "RAY_AUTH_MODE=disabled" in other.log
        assert "Traceback" not in other.log


def test_the_last_signal_ends_all_of_it(served: Served) -> None:
    assert served.stop() == 0
    served.process.wait_for_those_left()
    assert served.process.left_behind() == []


def test_a_setting_that_no_replica_can_work_with_ends_the_start(tmp_path: Path) -> None:
    graph = tmp_path / "graph.toml"
    graph.write_text('[jpg_decoder]\nbackend = "DecodeMatt"\n')
    arguments = ["-m", "service", "--port", "0", "--cluster", "local", "--config", str(graph)]
    with closing(ServerProcess(arguments)) as process:
        assert process.wait() == 2
        (line,) = process.log.splitlines()
        assert line.startswith("error: ")
        assert "DecodeMatt" in line


def test_what_only_a_replica_finds_is_told_after_one_start(tmp_path: Path) -> None:
    """And in its words, without a traceback."""
    backends, starts = tmp_path / "own.py", tmp_path / "starts"
    backends.write_text(
        "import sys\n"
        "if 'ray' in sys.modules:\n"
        f"    open({str(starts)!r}, 'a').write('1')\n"
        "    raise RuntimeError('no such device')\n"
    )
    arguments = ["-m", "service", "--port", "0", "--cluster", "local", "--backends", str(backends)]
    with closing(ServerProcess(arguments)) as process:
        assert process.wait() == 2
        assert process.log.splitlines()[-1].startswith("error: ")
        assert "no such device" in process.log.splitlines()[-1]
        assert "Traceback" not in process.log
        process.wait_for_those_left()
        assert process.left_behind() == []
    assert starts.read_text() == "1"


def test_a_signal_while_ray_starts_ends_what_it_has_started() -> None:
    arguments = ["-m", "service", "--handler", "null", "--port", "0", "--cluster", "local"]
    with closing(ServerProcess(arguments)) as process:
        # The first of Ray's processes.
        wait_until(lambda: any("gcs_server" in one.name() for one in process.left_behind()))
        process.process.send_signal(signal.SIGTERM)
        assert process.wait() == 128 + signal.SIGTERM
        assert "Traceback" not in process.log
        process.wait_for_those_left()
        assert process.left_behind() == []
