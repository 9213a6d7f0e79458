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
from tests.robustness.colour_model import write_colour_model
from tests.service.certificates import Authority
from tests.service.conftest import Wire

TIMEOUT_S = 30
CLIENTS = 16
BROKEN = (OSError, TTransportException)
NULL = ("-m", "service", "--handler", "null", "--port", "0")
CHECKED = ("-m", "service", "--handler", "pipeline", "--port", "0", "--workers", "1")

# Stands where the pipeline's handler is looked for. An image b"3 VALUE" is of class 3, and each
# VALUE that is worked on goes to a file.
CHECKED_HANDLER = """
import os
import numpy as np
from service.handlers.outcomes import Scores
from service.handlers.null import NUM_CLASSES, NullHandler

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

# Stands there as well; what it does for ever, it does in native code.
HUNG_HANDLER = """
import ctypes
from pathlib import Path
from service.handlers.null import NullHandler

def hang():
    mutex = ctypes.create_string_buffer(64)
    for _ in range(2):
        ctypes.CDLL(None).pthread_mutex_lock(mutex)

class HungHandler(NullHandler):
    def close(self):
        hang()

def create_handler(settings):
    if Path("loading").exists():
        # One native call, which says itself that it has begun.
        ctypes.CDLL(None).system(b"echo > loading; exec tail -f /dev/null")
    return HungHandler()
"""

# One native call, which keeps the interpreter's lock and says itself that it has begun.
LOCKED_HANDLER = """
import ctypes
from service.handlers.null import NullHandler

class LockedHandler(NullHandler):
    def classify(self, images, deadline, *more):
        if images[0] == b"hang":
            ctypes.PyDLL(None).system(b"echo > hangs; exec tail -f /dev/null 2>&-")
        return super().classify(images, deadline)

def create_handler(settings):
    return LockedHandler()
"""

# Stands there, too.
STARTING_HANDLER = """
import subprocess
from service.handlers.null import NullHandler

def create_handler(settings):
    subprocess.Popen(["sh", "-c", "trap '' TERM; exec tail -f /dev/null"])
    return NullHandler()
"""

# What an engine process never gets beyond, if there is a FIFO "loading".
HUNG_BACKENDS = """
import sys
from pathlib import Path

if "pipeline.engine_server" in sys.orig_argv and Path("loading").exists():
    import ctypes
    open("loading", "w").close()
    mutex = ctypes.create_string_buffer(64)
    for _ in range(2):
        ctypes.CDLL(None).pthread_mutex_lock(mutex)
"""
# A fork in each worker and in the engine process, which has all that these have open.
FORKING_BACKENDS = """
import os, signal

if not os.fork():
    signal.pause()
    os._exit(0)
"""
SHARED = (
    *("-m", "service", "--handler", "pipeline", "--port", "0", "--workers", "2"),
    *("--set", "shared_engine=always", "--calibrate", "off", "--backends", "backends.py"),
)

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


def write_handler(folder: Path, handler: str) -> None:
    (folder / "pipeline").mkdir()
    (folder / "pipeline" / "__init__.py").touch()
    (folder / "pipeline" / "handler.py").write_text(handler)


@pytest.fixture
def checked(start: Start, tmp_path: Path) -> Start:
    """Starts servers of the handler that notes what it has taken."""
    write_handler(tmp_path, CHECKED_HANDLER)
    return lambda *arguments: start(*CHECKED, *arguments)


@pytest.fixture
def shared(start: Start, tmp_path: Path) -> Start:
    """Starts servers of two workers and an engine process, with a model that takes no time."""
    model = write_colour_model(tmp_path).arguments()
    return lambda *arguments: start(*SHARED, *model, *arguments)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"), "authority")


@pytest.mark.parametrize(
    ("options", "tls"),
    [
        (("--workers", "1"), False),
        (("--workers", "1", "--drain-delay-s", "0.2"), True),
        (("--workers", "2"), True),
        (("--workers", "2", "--drain-delay-s", "0.2"), False),
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
    assert f"(pid {killed}) ended with" in server.read_until("and is replaced")
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
    server = start(*NULL, "--workers", workers, "--drain-delay-s", "3600")
    port = server.port()
    with closing(connect(port)) as client:
        assert client.health() == inference.Health(ready=True, reason="")
        server.process.terminate()
        if workers == "1":
            server.read_until("(SIGTERM): not ready, and serving on for --drain-delay-s = 3600.0")
        else:
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
    server = start(*NULL, "--workers", "2", "--drain-delay-s", "3600")
    port = server.port()
    with closing(connect(port)) as client:
        pid = client.server_info().pid
    server.process.terminate()
    for _ in range(2):
        server.read_until("not ready: the server will stop")
    os.kill(pid, signal.SIGKILL)
    server.read_until("and is replaced")
    server.read_until("not ready: the server will stop")
    for _ in range(2):
        with closing(connect(port)) as client:
            assert not client.health().ready
    server.process.terminate()
    assert server.wait() == 128 + signal.SIGTERM


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_handler_that_hangs_keeps_no_process(start: Start, tmp_path: Path, workers: str) -> None:
    """Nothing is cut off: no thread waits for what hangs."""
    write_handler(tmp_path, HUNG_HANDLER)
    server = start(*CHECKED, "--workers", workers, "--drain-timeout-s", "0.1")
    server.port()
    server.process.terminate()
    assert server.wait() == 0
    assert server.log.count("the handler hangs and is not closed") == int(workers)
    assert server.left_behind() == []


def test_a_worker_that_hangs_keeps_no_process(start: Start) -> None:
    server = start(*NULL, "--workers", "2", "--drain-timeout-s", "0.1")
    with closing(connect(server.port())) as client:
        os.kill(client.server_info().pid, signal.SIGSTOP)
        server.process.terminate()
        assert server.wait() == 1
    assert "did not exit; killing it with 1 connections" in server.log
    assert server.left_behind() == []


def test_a_second_signal_ends_a_process_whose_interpreter_is_locked(
    start: Start, tmp_path: Path
) -> None:
    write_handler(tmp_path, LOCKED_HANDLER)
    os.mkfifo(tmp_path / "hangs")
    server = start(*CHECKED, "--workers", "1")
    with socket.create_connection(("127.0.0.1", server.port())) as sock:
        sock.sendall(Wire.infer_batch(b"hang"))
        (tmp_path / "hangs").read_bytes()
        # Two that come at once are one.
        while server.process.poll() is None:
            server.process.terminate()
    assert server.wait() == -signal.SIGTERM


def test_one_signal_ends_a_worker_whose_interpreter_is_locked(start: Start, tmp_path: Path) -> None:
    write_handler(tmp_path, LOCKED_HANDLER)
    os.mkfifo(tmp_path / "hangs")
    server = start(*CHECKED, "--workers", "2", "--drain-timeout-s", "0.1")
    with socket.create_connection(("127.0.0.1", server.port())) as sock:
        sock.sendall(Wire.infer_batch(b"hang"))
        (tmp_path / "hangs").read_bytes()
        server.process.terminate()
        assert server.wait() == 1
    assert server.left_behind() == []


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_handler_that_hangs_ends_though_its_log_is_not_read(
    start: Start, tmp_path: Path, workers: str
) -> None:
    write_handler(tmp_path, HUNG_HANDLER)
    server = start(*CHECKED, "--workers", workers, "--drain-timeout-s", "0.1")
    server.port()
    server.fill_log()
    server.process.terminate()
    assert server.process.wait(TIMEOUT_S) == 0
    assert server.left_behind() == []


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_start_that_hangs_in_native_code_ends(start: Start, tmp_path: Path, workers: str) -> None:
    write_handler(tmp_path, HUNG_HANDLER)
    os.mkfifo(tmp_path / "loading")
    server = start(*CHECKED, "--workers", workers)
    (tmp_path / "loading").read_bytes()
    server.process.terminate()
    assert server.wait() == 128 + signal.SIGTERM
    assert server.log == ""
    assert server.left_behind() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_no_engine_process_that_loads_outlives_the_server(
    shared: Start, tmp_path: Path, number: int
) -> None:
    (tmp_path / "backends.py").write_text(HUNG_BACKENDS)
    os.mkfifo(tmp_path / "loading")
    server = shared()
    (tmp_path / "loading").read_bytes()
    server.process.send_signal(number)
    assert server.wait() == (128 + number if number == signal.SIGTERM else -number)
    server.wait_for_those_left()
    assert server.left_behind() == []
    assert "ERROR" not in server.log


def test_an_adopted_engine_process_is_reaped_and_its_successor_may_hang(
    shared: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a temporary directory whose name alone fills the address of a Unix socket."""
    temporary = tmp_path / ("long" * 40)
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    (tmp_path / "backends.py").write_text(HUNG_BACKENDS)
    server = shared()
    server.port()
    (engine,) = [
        process
        for process in psutil.Process(server.process.pid).children(recursive=True)
        if "pipeline.engine_server" in process.cmdline()
    ]
    # It has no descriptor left for the next worker, for a while.
    limits = engine.rlimit(psutil.RLIMIT_NOFILE)
    engine.rlimit(psutil.RLIMIT_NOFILE, (3, limits[1]))
    os.kill(engine.ppid(), signal.SIGKILL)
    server.read_until("cannot take a worker now, tried again in a second: Too many open files")
    engine.rlimit(psutil.RLIMIT_NOFILE, limits)
    server.read_until("is warm")
    os.mkfifo(tmp_path / "loading")
    engine.kill()
    told = f"process {engine.pid}, which a worker had started, ended: killed by SIGKILL"
    server.read_until(told)
    assert not psutil.pid_exists(engine.pid)
    (tmp_path / "loading").read_bytes()
    server.process.terminate()
    assert server.wait() == 0
    assert server.left_behind() == []
    assert list(temporary.iterdir()) == []


def test_what_a_handler_has_started_is_not_waited_for(start: Start, tmp_path: Path) -> None:
    write_handler(tmp_path, STARTING_HANDLER)
    server = start(*CHECKED, "--workers", "2", "--drain-timeout-s", "3600")
    server.port()
    server.process.terminate()
    assert server.wait() == 0
    assert server.left_behind() == []
    assert server.log.count("which a backend had started, was left and is killed") == 2
    assert "ERROR" not in server.log


def test_what_the_engine_process_has_started_is_not_waited_for(
    shared: Start, tmp_path: Path
) -> None:
    """It ends by itself all the same."""
    (tmp_path / "backends.py").write_text(FORKING_BACKENDS)
    server = shared("--drain-timeout-s", "3600")
    server.port()
    server.process.terminate()
    assert server.wait() == 0
    assert server.left_behind() == []
    assert server.log.count("which a backend had started, was left and is killed") == 3
    assert "ERROR" not in server.log


def test_a_second_signal_leaves_nothing_that_a_worker_has_started(
    start: Start, tmp_path: Path
) -> None:
    """Such as an engine process; this one would stay for ever."""
    write_handler(tmp_path, STARTING_HANDLER)
    server = start(*CHECKED, "--workers", "2", "--drain-delay-s", "3600")
    server.port()
    # Two workers, and what each has started.
    assert len(psutil.Process(server.process.pid).children(recursive=True)) == 4
    server.process.terminate()
    server.read_until("not ready, and serving on")
    server.process.terminate()
    assert server.wait() == 128 + signal.SIGTERM
    assert server.left_behind() == []
