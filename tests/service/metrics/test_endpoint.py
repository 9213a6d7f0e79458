"""HTTP beside the Thrift port."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from socketserver import TCPServer
from typing import Any

import pytest

from service.metrics.endpoint import HttpEndpoint, http_endpoint
from service.processes.lifecycle import Lifecycle
from tests.serving import refusal


@contextmanager
def served(server: Any = None) -> Iterator[tuple[HttpEndpoint, int]]:
    with http_endpoint("127.0.0.1", 0) as endpoint:
        endpoint.server = server
        yield endpoint, endpoint.server_address[1]


def ask(port: int, path: str, method: str = "GET", **headers: str) -> tuple[int, str, str]:
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), answer.headers["Content-Type"]
    finally:
        connection.close()


def test_before_there_is_a_server_it_lives_and_is_not_ready() -> None:
    with served() as (_, port):
        assert ask(port, "/livez")[:2] == (200, "alive\n")
        status, text, _ = ask(port, "/readyz")
        assert (status, text) == (503, "the server starts: it loads and warms up its model\n")
        assert ask(port, "/info")[0] == 503
        assert "\nthriftpipe_ready 0.0\n" in ask(port, "/metrics")[1]


def test_one_process_tells_of_itself(scripted_server: Any) -> None:
    client = scripted_server.client()
    client.ping()
    with served(scripted_server.server) as (_, port):
        status, text, kind = ask(port, "/metrics?a=b")
        assert (status, kind.startswith("text/plain")) == (200, True)
        assert '\nthriftpipe_requests_total{method="ping",outcome="ok"} 1.0\n' in text
        assert 'engine="scripted",handler="null",model="model.onnx"' in text
        assert "\nthriftpipe_ready 1.0\n" in text
        open_metrics = ask(port, "/metrics", Accept="application/openmetrics-text; version=1.0.0")
        assert open_metrics[2].startswith("application/openmetrics-text")
        assert open_metrics[1].endswith("# EOF\n")
        assert ask(port, "/readyz")[:2] == (200, "ready\n")
        scripted_server.server.trouble("the engine is broken")
        assert ask(port, "/readyz")[:2] == (503, "the engine is broken\n")
        assert "\nthriftpipe_ready 0.0\n" in ask(port, "/metrics")[1]
        scripted_server.server.trouble("")
        assert ask(port, "/livez", "HEAD")[:2] == (200, "")
        assert ask(port, "/livez", "POST")[0] == 501
        assert ask(port, "/")[0] == 404
    client.close()


def test_a_serving_thread_that_hangs_is_not_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.processes.lifecycle._TURN_S", 0.01)

    class Hung:
        ready = True
        lives = Lifecycle.lives

        def soon(self, errand: Any) -> None:
            """Never."""

    with served(Hung()) as (_, port):
        assert ask(port, "/livez")[:2] == (503, "the serving thread hangs\n")


def test_incomplete_requests_make_room_for_others() -> None:
    with served() as (_, port), ExitStack() as stack:
        silent = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
            for _ in range(16)
        ]
        for sock in silent:
            sock.sendall(b"GET /livez HTTP/1.1\r\n")
        # All are taken up in the order in which they came, so this one is beyond them.
        assert ask(port, "/livez")[0] == 200
        assert silent[0].recv(1) == b""
        silent[1].sendall(b"\r\n")
        assert silent[1].recv(12) == b"HTTP/1.0 200"


def test_only_so_many_requests_are_answered_at_once() -> None:
    has_begun, may_end = threading.Semaphore(0), threading.Event()

    class Slow:
        def lives(self) -> bool:
            has_begun.release()
            return may_end.wait(30)

    with served(Slow()) as (_, port), ThreadPoolExecutor(16) as clients:
        answers = [clients.submit(ask, port, "/livez") for _ in range(16)]
        for _ in answers:
            assert has_begun.acquire(timeout=30)
        with socket.create_connection(("127.0.0.1", port), timeout=30) as one_more:
            assert one_more.recv(1) == b""
        may_end.set()
        assert {answer.result()[0] for answer in answers} == {200}


def test_what_fails_is_answered_and_told(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def lives(self) -> bool:
            raise ValueError("no way")

    with served(Broken()) as (_, port):
        assert ask(port, "/livez")[:2] == (500, "the server failed; its log has why\n")
    assert "/livez cannot be answered" in caplog.text
    assert "ValueError: no way" in caplog.text


def test_without_descriptors_or_threads_it_goes_on_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.metrics.endpoint._PAUSE_S", 0.01)
    with served() as (_, port):
        lacking: list[Exception] = [OSError(24, "Too many open files")] * 3
        accept, start = TCPServer.get_request, threading.Thread.start

        def get_request(server: TCPServer) -> Any:
            if lacking:
                raise lacking.pop()
            return accept(server)

        monkeypatch.setattr(TCPServer, "get_request", get_request)
        assert ask(port, "/livez")[0] == 200
        assert not lacking
        # More often than requests may be under way at once.
        lacking = [RuntimeError("can't start new thread")] * 20

        def begin(thread: threading.Thread) -> None:
            if lacking:
                raise lacking.pop()
            start(thread)

        monkeypatch.setattr(TCPServer, "get_request", accept)
        monkeypatch.setattr(threading.Thread, "start", begin)
        while lacking:
            with socket.create_connection(("127.0.0.1", port), timeout=30) as sock:
                assert sock.recv(1) == b""
        assert ask(port, "/livez")[0] == 200


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this host has no IPv6")
def test_it_listens_on_an_address_of_ipv6() -> None:
    with (
        http_endpoint("::1", 0) as endpoint,
        socket.create_connection(endpoint.server_address[:2], timeout=30) as sock,
    ):
        sock.sendall(b"GET /livez HTTP/1.0\r\n\r\n")
        assert sock.recv(12) == b"HTTP/1.0 200"


def test_the_port_is_free_for_the_next_server_at_once() -> None:
    with served() as (_, port):
        # The server closes it first, and its end of the connection lingers.
        assert ask(port, "/livez")[0] == 200
    with http_endpoint("127.0.0.1", port):
        assert ask(port, "/livez")[0] == 200


def test_a_port_in_use_is_told_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = refusal("--handler", "null", "--metrics-port", str(port), exit_code=1)
    assert line == (
        f"error: port {port} on 127.0.0.1 is in use by another process; stop it or choose another "
        "with --metrics-port"
    )


def test_two_ports_are_needed() -> None:
    line = refusal("--handler", "null", "--port", "8095", "--metrics-port", "8095")
    assert line == "error: --metrics-port 8095 is that of --port; HTTP needs one of its own"


def test_what_cannot_work_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    monkeypatch.setitem(sys.modules, "prometheus_client.core", None)
    monkeypatch.delitem(sys.modules, "service.metrics.exposition", raising=False)
    line = refusal("--handler", "null", "--metrics-port", "0")
    assert "--metrics-port needs the package prometheus-client" in line
    assert "pip install 'thriftpipe[metrics]'" in line


@pytest.mark.parametrize(
    ("modules", "absent"),
    [
        ("service.cli, service.worker", ("prometheus_client", "rich", "pynvml")),
        ("service.client.client_command", ("prometheus_client", "rich", "pynvml")),
        # A supervisor holds no scores, and answers HTTP where --metrics-port says so.
        ("service.cli", ("numpy", "http.server")),
    ],
)
def test_a_program_loads_only_what_it_needs(modules: str, absent: tuple[str, ...]) -> None:
    code = f"import sys, {modules}; print([name for name in {absent} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"
