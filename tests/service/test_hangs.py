"""Processes that are there and do nothing: stopped ones stand for those that hang."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import pytest
from thriftpy2.rpc import make_client
from thriftpy2.transport import TTransportException

from idl import inference
from tests.waiting import wait_until

TIMEOUT_S = 30
BROKEN = (OSError, TTransportException)
WORKERS = ("-m", "service", "--handler", "null", "--port", "0", "--workers", "2")
SCRIPTED = ("-m", "service", "--handler", "pipeline", "--port", "0", "--workers", "2")

# Stands where the pipeline's handler is looked for. If the FIFO "loading" exists, it says by it
# that it loads, and waits for the other one.
SLOW_HANDLER = """
from pathlib import Path
from service.handlers.null import NullHandler

def create_handler(settings):
    if Path("loading").exists():
        open("loading", "w").close()
        open("release").close()
    return NullHandler()
"""

Start = Callable[..., Any]
Connect = Callable[[int], Any]
IMAGE = inference.InferenceParams("u", b"x")


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Makes clients of a port; they are closed at the end of the test."""
    with ExitStack() as stack:

        def make(port: int) -> Any:
            service = inference.InferenceService
            client = make_client(service, "127.0.0.1", port, timeout=TIMEOUT_S * 1000)
            return stack.enter_context(closing(client))

        yield make


def test_a_worker_that_hangs_is_replaced_with_one_line(start: Start, connect: Connect) -> None:
    server = start(*WORKERS, "--hang-timeout-s", "1")
    port = server.port()
    clients = {(info := (one := connect(port)).server_info()).worker: (one, info) for _ in range(2)}
    (hung, info), (other, other_info) = clients[0], clients[1]
    os.kill(info.pid, signal.SIGSTOP)
    line = server.read_until("and is replaced")
    assert f"worker 0 (pid {info.pid}) ended with 1 connections" in line
    assert line.endswith(": it gave no sign of life for --hang-timeout-s = 1 and was killed")
    with pytest.raises(BROKEN):
        hung.ping()
    assert other.server_info().pid == other_info.pid
    server.read_until("worker 0 is warm")
    server.process.terminate()
    assert server.wait() == 0
    assert server.log.count("ERROR") == 1
    assert server.left_behind() == []


def test_what_a_hung_worker_has_not_taken_is_served_by_others(
    start: Start, connect: Connect
) -> None:
    server = start(*WORKERS, "--hang-timeout-s", "1")
    port = server.port()
    pids = [connect(port).server_info().pid for _ in range(2)]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    clients = [connect(port) for _ in range(10)]
    assert [client.infer_batch(IMAGE).label for client in clients] == ["tench"] * 10
    assert not {client.server_info().pid for client in clients} & set(pids)


def test_a_start_is_no_hang(start: Start, connect: Connect, tmp_path: Path) -> None:
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline" / "__init__.py").touch()
    (tmp_path / "pipeline" / "handler.py").write_text(SLOW_HANDLER)
    server = start(*SCRIPTED, "--hang-timeout-s", "0.5")
    port = server.port()
    pids = {(info := connect(port).server_info()).worker: info.pid for _ in range(2)}
    for name in ("loading", "release"):
        os.mkfifo(tmp_path / name)
    os.kill(pids[0], signal.SIGKILL)
    (tmp_path / "loading").read_bytes()
    # Worker 0 has been loading for the whole time by now.
    os.kill(pids[1], signal.SIGSTOP)
    server.read_until("it gave no sign of life")
    (tmp_path / "loading").read_bytes()
    (tmp_path / "loading").unlink()
    _release_all(tmp_path / "release")
    for _ in pids:
        server.read_until("is warm")
    assert server.log.count("and is replaced") == 2


def _release_all(fifo: Path) -> None:
    """Let those go on that wait at a FIFO for its other end, and those that are about to."""
    waited_at, empty = fifo.with_name("waited-at"), fifo.with_name("empty")
    os.link(fifo, waited_at)
    empty.touch()
    empty.replace(fifo)
    with suppress(OSError):  # no process waits
        os.close(os.open(waited_at, os.O_WRONLY | os.O_NONBLOCK))


def test_workers_of_a_hung_supervisor_serve_on_and_say_so(start: Start, connect: Connect) -> None:
    """Even while their log is not read; and the supervisor does not blame them for the time
    in which it did not run itself.
    """
    server = start(*WORKERS, "--hang-timeout-s", "0.5")
    port = server.port()
    clients = [connect(port) for _ in range(2)]
    pids = [client.server_info().pid for client in clients]
    for client in clients:
        assert client.health().ready
    server.fill_log()
    server.process.send_signal(signal.SIGSTOP)
    wait_until(lambda: not any(client.health().ready for client in clients))
    for client in clients:
        assert client.health().reason == "the supervisor hangs: silent for 0.5 s"
    for _ in pids:
        server.read_until("the supervisor hangs: silent for 0.5 s")
    for client in clients:
        assert client.infer_batch(IMAGE).label == "tench"
    server.process.send_signal(signal.SIGCONT)
    for _ in pids:
        server.read_until("the supervisor is there again")
    assert [client.health().ready for client in clients] == [True, True]
    assert [client.server_info().pid for client in clients] == pids
    server.process.terminate()
    assert server.wait() == 0
    assert "and is replaced" not in server.log
