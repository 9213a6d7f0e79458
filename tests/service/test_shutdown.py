"""Stops and deaths under load: each request is answered rightly, or fails without being taken."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import threading
import uuid
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest
from thriftpy2.rpc import make_client
from thriftpy2.transport import TTransportException

from idl import inference
from tests.service.certificates import Authority

TIMEOUT_S = 30
CLIENTS = 16
BROKEN = (OSError, TTransportException)
NULL = ("-m", "service", "--handler", "null", "--port", "0")
CHECKED = ("-m", "service", "--handler", "pipeline", "--port", "0")

# Stands where the pipeline's handler is looked for. An image b"3 VALUE" is of class 3, and each
# VALUE that is worked on goes to a file.
CHECKED_HANDLER = """
import os
import numpy as np
from service.handler import Scores
from service.null_handler import NUM_CLASSES, NullHandler

class CheckedHandler(NullHandler):
    def __init__(self):
        super().__init__()
        self.taken = os.open("taken", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    def classify(self, images, deadline, *more):
        return [self.scores(image) for image in images]
    def scores(self, image):
        class_id, _, value = image.partition(b" ")
        if not class_id.isdigit():
            # What the server warms up with.
            return self._scores
        probabilities = np.zeros(NUM_CLASSES, dtype=np.float32)
        probabilities[int(class_id)] = 1.0
        os.write(self.taken, value + b"\\n")
        return Scores(probabilities)

def create_handler(settings):
    return CheckedHandler()
"""

Start = Callable[..., Any]
Params = inference.InferenceParams


def connect(port: int, context: ssl.SSLContext | None = None) -> Any:
    return make_client(
        inference.InferenceService,
        "127.0.0.1",
        port,
        timeout=TIMEOUT_S * 1000,
        ssl_context=context,
    )


class LoadClient(threading.Thread):
    """Asks without a pause, each time with a value of its own, until `done` or refused.

    Attributes:
        answered: values with the right answer.
        wrong: answers to another request.
        broken: values whose connection broke, and the pid of the process that it was to.
        pids: of the processes that it was connected to, in order.
    """

    def __init__(
        self, connect: Callable[[], Any], number: int, labels: list[str], progress: Any
    ) -> None:
        super().__init__(daemon=True)
        self._connect = connect
        self._number = number
        self._labels = labels
        self._progress = progress
        self.done = threading.Event()
        self.answered: list[str] = []
        self.wrong: list[Any] = []
        self.broken: list[tuple[str, int]] = []
        self.pids: list[int] = []

    def run(self) -> None:
        while not self.done.is_set():
            try:
                client = self._connect()
            except BROKEN:
                return
            with closing(client):
                self._ask_until_it_breaks(client)

    def _ask_until_it_breaks(self, client: Any) -> None:
        try:
            self.pids.append(client.server_info().pid)
        except BROKEN:
            return
        while not self.done.is_set():
            value = str(uuid.uuid4())
            class_id = (self._number + len(self.answered)) % len(self._labels)
            image = f"{class_id} {value}".encode()
            try:
                (result,) = client.infer_images([Params(value, image)])
            except BROKEN:
                self.broken.append((value, self.pids[-1]))
                return
            if (result.uuid, result.label) != (value, self._labels[class_id]):
                self.wrong.append(result)
            self.answered.append(value)
            self._progress.release()


class Load:
    """CLIENTS clients of a port, plain ones without `context`."""

    def __init__(self, port: int, labels: list[str], context: ssl.SSLContext | None = None) -> None:
        self._progress = threading.Semaphore(0)
        self.clients = [
            LoadClient(lambda: connect(port, context), number, labels, self._progress)
            for number in range(CLIENTS)
        ]
        for client in self.clients:
            client.start()

    def wait_for_answers(self, count: int) -> None:
        for _ in range(count):
            assert self._progress.acquire(timeout=TIMEOUT_S)

    def stop(self) -> None:
        for client in self.clients:
            client.done.set()

    def join(self) -> None:
        for client in self.clients:
            client.join(TIMEOUT_S)
            assert not client.is_alive()
        assert [client.wrong for client in self.clients] == [[]] * CLIENTS

    def answered(self) -> set[str]:
        return {value for client in self.clients for value in client.answered}

    def broken(self) -> set[str]:
        return {value for client in self.clients for value, _ in client.broken}


@pytest.fixture
def checked(start: Start, tmp_path: Path) -> Start:
    """Starts servers of the handler that notes what it has taken."""
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline" / "__init__.py").touch()
    (tmp_path / "pipeline" / "handler.py").write_text(CHECKED_HANDLER)
    return lambda *arguments: start(*CHECKED, *arguments)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"), "authority")


@pytest.mark.parametrize(
    ("options", "tls"),
    [
        (("--workers", "1"), False),
        (("--workers", "1", "--unready-s", "0.2"), True),
        (("--workers", "2"), True),
        (("--workers", "2", "--unready-s", "0.2"), False),
    ],
    ids=["alone", "alone-notice-tls", "workers-tls", "workers-notice"],
)
def test_a_stop_under_load_loses_and_confuses_nothing(
    checked: Start,
    tmp_path: Path,
    imagenet_labels: list[str],
    authority: Authority,
    options: tuple[str, ...],
    tls: bool,
) -> None:
    """What the server has taken is answered; the rest meets a closed or refused connection."""
    context = None
    if tls:
        certificate, key = authority.issue("server")
        options = (*options, "--tls-cert", str(certificate), "--tls-key", str(key))
        context = ssl.create_default_context(cafile=str(authority.certificate))
    server = checked(*options)
    port = server.port()
    load = Load(port, imagenet_labels, context)
    load.wait_for_answers(500)
    server.process.terminate()
    load.join()
    assert server.wait() == 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    taken = set((tmp_path / "taken").read_text().split())
    assert taken == load.answered()
    assert not taken & load.broken()
    assert server.left_behind() == []
    assert "Traceback" not in server.log


def test_a_worker_killed_under_load_costs_its_own_connections_only(
    checked: Start, imagenet_labels: list[str]
) -> None:
    server = checked("--workers", "2")
    port = server.port()
    load = Load(port, imagenet_labels)
    load.wait_for_answers(500)
    workers = {child.pid for child in psutil.Process(server.process.pid).children()}
    killed = load.clients[0].pids[0]
    os.kill(killed, signal.SIGKILL)
    assert f"(pid {killed}) ended with" in server.read_until("another takes its place")
    server.read_until("is warm")
    load.wait_for_answers(500)
    load.stop()
    load.join()
    for client in load.clients:
        pids = {pid for _, pid in client.broken}
        assert pids == ({killed} if client.pids[0] == killed else set())
    assert not load.answered() & load.broken()
    with closing(connect(port)) as one, closing(connect(port)) as two:
        assert {one.server_info().pid, two.server_info().pid} - workers
    server.process.terminate()
    assert server.wait() == 0
    assert server.left_behind() == []


@pytest.mark.parametrize("workers", ["1", "2"])
def test_it_is_not_ready_first_while_it_lives_and_answers(start: Start, workers: str) -> None:
    """A second signal does not wait until the notice is over, and leaves no child."""
    server = start(*NULL, "--workers", workers, "--unready-s", "3600")
    port = server.port()
    with closing(connect(port)) as client:
        assert client.health() == inference.Health(ready=True, reason="")
        server.process.terminate()
        server.read_until("(SIGTERM): not ready, and serving on for --unready-s = 3600.0")
        if workers == "2":
            for _ in range(2):
                server.read_until("not ready: the server will stop (SIGTERM)")
        for asked in (client, connect(port), connect(port)):
            health = asked.health()
            assert (health.ready, health.reason) == (False, "the server stops: SIGTERM")
            assert asked.infer_batch(Params("u", b"x")).label == "tench"
            asked.ping()
    server.process.send_signal(signal.SIGTERM)
    assert server.wait() == 128 + signal.SIGTERM
    assert server.left_behind() == []


def test_a_worker_replaced_during_the_notice_is_not_ready_either(start: Start) -> None:
    server = start(*NULL, "--workers", "2", "--unready-s", "3600")
    port = server.port()
    with closing(connect(port)) as client:
        pid = client.server_info().pid
    server.process.terminate()
    for _ in range(2):
        server.read_until("not ready: the server will stop")
    os.kill(pid, signal.SIGKILL)
    server.read_until("another takes its place")
    server.read_until("not ready: the server will stop")
    for _ in range(2):
        with closing(connect(port)) as client:
            assert not client.health().ready
    server.process.terminate()
    assert server.wait() == 128 + signal.SIGTERM


def test_a_second_signal_leaves_no_engine_process(start: Start) -> None:
    server = start(
        *("-m", "service", "--handler", "pipeline", "--port", "0", "--workers", "2"),
        *("--set", "shared_engine=always", "--model", "efficientnet_lite0"),
        *("--unready-s", "3600"),
    )
    server.port()
    children = psutil.Process(server.process.pid).children(recursive=True)
    assert any("pipeline.engine_process.host" in child.cmdline() for child in children)
    server.process.terminate()
    server.read_until("not ready, and serving on")
    server.process.terminate()
    assert server.wait() == 128 + signal.SIGTERM
    assert server.left_behind() == []
