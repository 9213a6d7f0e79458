"""`--workers N` as processes: connections, deaths, drains and failing starts."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from thriftpy2.rpc import make_client
from thriftpy2.transport import TTransportException

from engine.cpu.cores import available_cores
from idl import inference

TIMEOUT_S = 30
BROKEN = (OSError, TTransportException)
NULL = ("-m", "service", "--handler", "null", "--port", "0")
SCRIPTED = ("-m", "service", "--handler", "pipeline", "--port", "0", "--workers", "1")

# Stands where the pipeline's handler is looked for. b"wait NAME" reports by one FIFO and waits for
# another; a file "broken" or "crash" makes the start fail, and the FIFO "loading" makes it wait.
# With a file "fork" it forks a process that holds all that the worker has open, for ever.
SCRIPTED_HANDLER = """
import os
import signal
from dataclasses import replace
from pathlib import Path
from engine.cpu.cores import available_cores
from service.errors import ConfigurationError
from service.handlers.null import NullHandler

class ScriptedHandler(NullHandler):
    def __init__(self, settings):
        super().__init__()
        self.settings = {"devices": str(settings.devices), "cores": str(available_cores())}
    def classify(self, images, deadline):
        if images[0].startswith(b"wait"):
            name = images[0].split()[1].decode()
            open("entered-" + name, "w").close()
            open("release-" + name).close()
        return super().classify(images, deadline)
    def info(self):
        return replace(super().info(), settings=self.settings)

def create_handler(settings):
    if Path("fork").exists() and not os.fork():
        signal.pause()
    if Path("loading").exists():
        open("loading", "w").close()
        open("release").close()
    if Path("crash").exists():
        os._exit(7)
    if Path("broken").exists():
        raise ConfigurationError("the model\\nis broken")
    return ScriptedHandler(settings)
"""

Start = Callable[..., Any]
Params = inference.InferenceParams


@pytest.fixture
def scripted_handler(tmp_path: Path) -> None:
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline" / "__init__.py").touch()
    (tmp_path / "pipeline" / "handler.py").write_text(SCRIPTED_HANDLER)


class WaitingRequest(threading.Thread):
    """A call that is in flight in `handler` from now until `release`, and its label."""

    def __init__(self, client: Any, folder: Path, name: str) -> None:
        super().__init__(daemon=True)
        self._client = client
        self._folder = folder
        self._name = name
        self.outcome: Any = None
        for step in ("entered", "release"):
            os.mkfifo(folder / f"{step}-{name}")
        self.start()
        (folder / f"entered-{name}").read_bytes()

    def run(self) -> None:
        try:
            self.outcome = self._client.infer_batch(Params("u", f"wait {self._name}".encode()))
        except Exception as error:  # noqa: BLE001 (the test looks at whatever came)
            self.outcome = error

    def release(self) -> None:
        (self._folder / f"release-{self._name}").write_bytes(b"")
        self.join(TIMEOUT_S)


def test_connections_are_spread_evenly_and_no_other_server_gets_any(
    start: Start, connect: Any
) -> None:
    server = start(*NULL, "--workers", "3")
    port = server.port()
    infos = [connect(port).server_info() for _ in range(9)]
    assert Counter(info.worker for info in infos) == {0: 3, 1: 3, 2: 3}
    assert len({info.pid for info in infos}) == 3
    assert {(info.workers, info.supervisor_pid) for info in infos} == {(3, server.process.pid)}
    children = psutil.Process(server.process.pid).children(recursive=True)
    assert {child.pid for child in children} == {info.pid for info in infos}
    # So are clients that come and go.
    workers = set()
    for _ in range(3):
        with closing(make_client(inference.InferenceService, "127.0.0.1", port)) as client:
            workers.add(client.server_info().worker)
    assert workers == {0, 1, 2}
    second = start(*NULL, "--workers", "2", "--port", str(port))
    assert second.wait() == 1
    told = f"error: port {port} on 127.0.0.1 is in use by another process; stop it or choose"
    assert second.log.startswith(told)
    assert second.log.count("\n") == 1
    connect(port).ping()


def test_each_worker_has_its_share(start: Start, connect: Any, scripted_handler: None) -> None:
    del scripted_handler
    port = start(*SCRIPTED, "--workers", "2", "--devices", "4,5,6").port()
    infos = [connect(port).server_info() for _ in range(2)]
    devices = {info.worker: info.settings["devices"] for info in infos}
    assert devices == {0: "(4, 6)", 1: "(5,)"}
    assert {info.settings["cores"] for info in infos} == {str(max(1, available_cores() // 2))}


def test_it_is_ready_once_and_shares_out_queue_and_clients(start: Start, connect: Any) -> None:
    server = start(*NULL, "--workers", "2", "--max-queue", "3")
    line = server.read_until("ready: ")
    assert "ready: null handler (none, none, none) in 2 workers on 127.0.0.1:" in line
    assert all(f"worker {index} is warm" in server.log for index in (0, 1))
    port = int(line.rpartition(":")[2])
    clients = {client.server_info().worker: client for client in (connect(port), connect(port))}
    # Each worker has one image at work, and its part of three may wait.
    for worker, share in ((0, 3), (1, 2)):
        assert len(clients[worker].infer_images([Params("u", b"x")] * share)) == share
        with pytest.raises(inference.InvalidRequest, match=f"lets {share - 1} wait"):
            clients[worker].infer_images([Params("u", b"x")] * (share + 1))
    # More than are handed to a worker that does not take them up; all were let in.
    pids = [client.server_info().pid for client in clients.values()]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    later = [connect(port) for _ in range(50)]
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    assert {client.server_info().pid for client in later} == set(pids)
    server.process.terminate()
    assert server.wait() == 0, server.log
    assert server.log.count("ready: ") == 1
    assert " INFO worker 1 service.thrift_server: stopping (SIGTERM)" in server.log


def test_a_worker_that_dies_is_replaced_and_the_other_clients_notice_nothing(
    start: Start, connect: Any
) -> None:
    server = start(*NULL, "--workers", "2")
    port = server.port()
    clients = [connect(port) for _ in range(4)]
    infos = [client.server_info() for client in clients]
    killed = infos[0]
    os.kill(killed.pid, signal.SIGKILL)
    line = server.read_until("and is replaced")
    assert f"worker {killed.worker} (pid {killed.pid}) ended with 2 connections" in line
    assert "killed by SIGKILL" in line
    for client, info in zip(clients, infos, strict=True):
        if info.worker == killed.worker:
            with pytest.raises(BROKEN):
                client.ping()
        else:
            assert client.server_info().pid == info.pid
    server.read_until(f"worker {killed.worker} is warm")
    successor = connect(port).server_info()
    assert successor.worker == killed.worker
    assert successor.pid not in {info.pid for info in infos}
    # The next one is started later: none of the descriptors that are left is free.
    supervisor = psutil.Process(server.process.pid)
    limits = supervisor.rlimit(psutil.RLIMIT_NOFILE)
    supervisor.rlimit(psutil.RLIMIT_NOFILE, (3, limits[1]))
    os.kill(successor.pid, signal.SIGKILL)
    server.read_until("cannot be started: Too many open files; the next attempt is in 1 s")
    supervisor.rlimit(psutil.RLIMIT_NOFILE, limits)
    server.read_until(f"worker {killed.worker} is warm")
    assert connect(port).server_info().pid != successor.pid
    # Without any worker, clients wait.
    pids = {child.pid for child in supervisor.children()}
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    for _ in pids:
        server.read_until("and is replaced")
    assert connect(port).server_info().pid not in pids
    server.process.terminate()
    assert server.wait() == 0, server.log
    assert server.left_behind() == []


def test_the_end_of_a_worker_is_noticed_though_its_fork_lives(
    start: Start, connect: Any, scripted_handler: None, tmp_path: Path
) -> None:
    del scripted_handler
    (tmp_path / "fork").touch()
    server = start(*SCRIPTED, "--workers", "2", "--hang-timeout-s", "0")
    killed = connect(server.port()).server_info()
    os.kill(killed.pid, signal.SIGKILL)
    line = server.read_until("and is replaced")
    assert f"worker {killed.worker} (pid {killed.pid}) ended with 1 connections" in line
    assert "killed by SIGKILL" in line
    server.read_until(f"worker {killed.worker} is warm")
    (tmp_path / "fork").unlink()
    for child in psutil.Process(server.process.pid).children(recursive=True):
        if len(child.threads()) == 1:
            child.kill()
    server.process.terminate()
    assert server.wait() == 0, server.log


@pytest.mark.parametrize("to_all", [False, True], ids=["SIGTERM", "Ctrl-C"])
def test_requests_in_flight_in_all_workers_are_answered_when_it_stops(
    start: Start, connect: Any, scripted_handler: None, tmp_path: Path, to_all: bool
) -> None:
    del scripted_handler
    server = start(*SCRIPTED, "--workers", "2")
    port = server.port()
    idle = connect(port)
    requests = [WaitingRequest(connect(port), tmp_path, name) for name in "abc"]
    if to_all:
        os.killpg(server.process.pid, signal.SIGINT)
    else:
        server.process.terminate()
    for _ in range(2):
        server.read_until(" requests in flight")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    for request in requests:
        request.release()
    assert [request.outcome.label for request in requests] == ["tench"] * 3
    assert server.wait() == 0, server.log
    assert server.left_behind() == []
    assert "Traceback" not in server.log
    with pytest.raises(BROKEN):
        idle.ping()


def test_what_was_accepted_before_it_stops_is_answered(start: Start, wire: Any) -> None:
    """Even if no worker has taken it up by then."""
    server = start(*NULL, "--workers", "2", "--max-connections", "32")
    port = server.port()
    workers = psutil.Process(server.process.pid).children()
    for worker in workers:
        worker.suspend()
    with ExitStack() as stack:
        socks = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S))
            for _ in range(32)
        ]
        for sock in socks:
            sock.sendall(wire.infer_batch())
        server.read_until("32 connections are open")
        server.process.terminate()
        server.read_until("2 workers drain")
        for worker in workers:
            worker.resume()
        assert [b"tench" in wire.read_all(sock) for sock in socks] == [True] * 32
    assert server.wait() == 0, server.log


def test_what_is_not_finished_in_time_is_cut_off_with_exit_code_1(
    start: Start, connect: Any, scripted_handler: None, tmp_path: Path
) -> None:
    del scripted_handler
    server = start(*SCRIPTED, "--workers", "2", "--drain-timeout-s", "0.1")
    port = server.port()
    requests = [WaitingRequest(connect(port), tmp_path, name) for name in "ab"]
    server.process.terminate()
    assert server.wait() == 1
    assert server.log.count("1 requests were cut off") == 2
    assert server.left_behind() == []
    for request in requests:
        request.join(TIMEOUT_S)
        assert isinstance(request.outcome, BROKEN)


def test_a_worker_that_dies_while_it_drains_makes_the_exit_code_1(
    start: Start, connect: Any, scripted_handler: None, tmp_path: Path
) -> None:
    del scripted_handler
    server = start(*SCRIPTED, "--workers", "2")
    client = connect(server.port())
    pid = client.server_info().pid
    WaitingRequest(client, tmp_path, "a")
    server.process.terminate()
    server.read_until("finishing 1 requests in flight")
    os.kill(pid, signal.SIGKILL)
    assert server.wait() == 1
    assert "ended while it drained (killed by SIGKILL" in server.log
    assert server.left_behind() == []


def test_a_second_signal_ends_all_at_once(
    start: Start, connect: Any, scripted_handler: None, tmp_path: Path
) -> None:
    del scripted_handler
    server = start(*SCRIPTED, "--workers", "2")
    WaitingRequest(connect(server.port()), tmp_path, "a")
    server.process.terminate()
    server.read_until("finishing 1 requests in flight")
    server.process.send_signal(signal.SIGINT)
    assert server.wait() == 128 + signal.SIGINT
    # The supervisor is gone at once; its workers notice.
    server.wait_for_those_left()
    assert server.left_behind() == []


def test_no_worker_outlives_a_killed_supervisor(
    start: Start, connect: Any, scripted_handler: None, tmp_path: Path
) -> None:
    """Whether it is idle or busy."""
    del scripted_handler
    server = start(*SCRIPTED, "--workers", "2")
    WaitingRequest(connect(server.port()), tmp_path, "a")
    workers = psutil.Process(server.process.pid).children()
    server.process.kill()
    gone, alive = psutil.wait_procs(workers, TIMEOUT_S)
    assert (len(gone), alive) == (2, [])
    assert server.wait() == -signal.SIGKILL


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_supervisor_that_ends_during_the_start_leaves_no_worker(
    start: Start, scripted_handler: None, tmp_path: Path, number: int
) -> None:
    del scripted_handler
    os.mkfifo(tmp_path / "loading")
    os.mkfifo(tmp_path / "release")
    server = start(*SCRIPTED, "--workers", "2")
    (tmp_path / "loading").read_bytes()
    server.process.send_signal(number)
    assert server.wait() == (143 if number == signal.SIGTERM else -number)
    # A process closes its end of the log a moment before it is gone.
    server.wait_for_those_left()
    assert server.left_behind() == []
    assert server.log == ""


def test_a_start_that_fails_is_one_line(
    start: Start, scripted_handler: None, tmp_path: Path
) -> None:
    del scripted_handler
    (tmp_path / "broken").touch()
    server = start(*SCRIPTED, "--workers", "3")
    assert server.wait() == 2
    assert server.log == "error: the model is broken\n"
    assert server.left_behind() == []


def test_workers_that_die_again_and_again_end_the_start(
    start: Start, scripted_handler: None, tmp_path: Path
) -> None:
    del scripted_handler
    (tmp_path / "crash").touch()
    server = start(*SCRIPTED, "--workers", "2")
    assert server.wait() == 1
    *attempts, error = server.log.splitlines()
    assert len(attempts) == 2
    assert "worker 0: ended before it was ready (exit code 7); the next attempt is in" in server.log
    told = "error: worker 0 ended before it was ready (exit code 7), 3 times in a row; "
    assert error.startswith(told)
    assert server.left_behind() == []


def test_a_worker_that_cannot_be_replaced_is_tried_again_while_others_serve_and_no_longer(
    start: Start, connect: Any, scripted_handler: None, tmp_path: Path
) -> None:
    del scripted_handler
    server = start(*SCRIPTED, "--workers", "2")
    port = server.port()
    (tmp_path / "broken").touch()
    os.kill(connect(port).server_info().pid, signal.SIGKILL)
    for pause_s in (0.5, 1, 2):
        server.read_until(f"the model is broken; the next attempt is in {pause_s:g} s")
        connect(port).ping()
    (tmp_path / "broken").unlink()
    server.read_until("worker 0 is warm")
    assert connect(port).server_info().worker == 0
    (tmp_path / "broken").touch()
    before = len(server.log)
    for worker in psutil.Process(server.process.pid).children():
        worker.kill()
    assert server.wait() == 2
    assert server.log.splitlines()[-1] == "error: the model is broken"
    assert server.log[before:].count("the model is broken; the next attempt is in 1 s") == 2
    assert server.left_behind() == []


def test_max_connections_holds_for_all_workers_together(start: Start, connect: Any) -> None:
    server = start(*NULL, "--workers", "2", "--max-connections", "2")
    port = server.port()
    first, second = connect(port), connect(port)
    assert {first.server_info().worker, second.server_info().worker} == {0, 1}
    connect(port).ping()
    assert connect(port).health().ready
    image = inference.InferenceParams("u", b"x")
    for _ in range(20):
        with pytest.raises(inference.Overloaded, match="2 connections are open"):
            connect(port).infer_batch(image)
    first.close()
    # Until the supervisor has been told that there is a place.
    while True:
        with suppress(inference.Overloaded):
            assert connect(port).infer_batch(image).label == "tench"
            break
    assert second.infer_batch(image).label == "tench"
    # The room of a dead worker's connection is free again.
    info = second.server_info()
    os.kill(info.pid, signal.SIGKILL)
    server.read_until("and is replaced")
    third = connect(port)
    for _ in range(2):
        assert third.server_info().workers == 2
    server.process.terminate()
    assert server.wait() == 0, server.log
    assert "2 connections are open, as --max-connections allows" in server.log
