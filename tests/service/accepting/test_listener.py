"""What keeps a server from accepting does not end it."""

from __future__ import annotations

import errno
import logging
import selectors
import socket
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from idl import inference
from service.accepting.listener import PortListener
from service.options.server_settings import ServerSettings
from tests.serving import TIMEOUT_S, connect

NULL = ("-m", "service", "--handler", "null", "--port", "0")
RESOURCES = [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EIO]
OF_ONE_CONNECTION = [
    *(errno.ECONNABORTED, errno.EPERM, errno.EPROTO, errno.ENETDOWN, errno.ENOPROTOOPT),
    *(errno.EHOSTDOWN, errno.ENONET, errno.EHOSTUNREACH, errno.EOPNOTSUPP, errno.ENETUNREACH),
]


class FailingSocket(socket.socket):
    """A listening socket that fails as the kernel would, as often as it is told."""

    failures: list[int]

    def accept(self) -> tuple[socket.socket, Any]:
        if self.failures:
            raise OSError(number := self.failures.pop(0), errno.errorcode[number])
        return super().accept()


@pytest.fixture
def sock(monkeypatch: pytest.MonkeyPatch) -> FailingSocket:
    sock = FailingSocket()
    sock.failures = []
    sock.bind(("127.0.0.1", 0))
    monkeypatch.setattr("service.accepting.listener.bind", lambda *_: sock)
    return sock


@pytest.fixture
def selector() -> Iterator[selectors.BaseSelector]:
    with selectors.DefaultSelector() as made:
        yield made


@pytest.fixture
def listener(
    sock: FailingSocket,  # noqa: ARG001 (it stands where the port is bound)
    selector: selectors.BaseSelector,
) -> Iterator[PortListener]:
    made = PortListener(ServerSettings(port=0))
    made.open()
    made.start(selector, "a test")
    yield made
    made.close()


@pytest.mark.parametrize("number", RESOURCES, ids=errno.errorcode.get)
def test_a_lack_of_means_is_a_pause_and_two_lines(
    listener: PortListener,
    sock: FailingSocket,
    selector: selectors.BaseSelector,
    caplog: pytest.LogCaptureFixture,
    number: int,
) -> None:
    caplog.set_level(logging.INFO, "service.accepting.listener")
    sock.failures = [number] * 4
    with socket.create_connection(sock.getsockname()):
        accepted = None
        pauses_s = []
        while accepted is None:
            if (pause_s := listener.pause_s()) is not None:
                pauses_s.append(pause_s)
                assert not selector.get_map(), "nothing is ready all the time meanwhile"
            selector.select(pause_s)
            listener.end_pause()
            if listener.pause_s() is None:
                accepted = listener.accept()
        accepted.sock.close()
    assert len(pauses_s) >= 4
    assert max(pauses_s) > 4 * pauses_s[0]
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO"]
    assert errno.errorcode[number] in caplog.text


@pytest.mark.parametrize("number", OF_ONE_CONNECTION, ids=errno.errorcode.get)
def test_what_concerns_one_connection_delays_no_other(
    listener: PortListener, sock: FailingSocket, number: int
) -> None:
    sock.failures = [number] * 50
    with socket.create_connection(sock.getsockname()):
        for _ in range(50):
            assert listener.accept() is None
            assert listener.pause_s() is None
        accepted = listener.accept()
    assert accepted is not None
    accepted.sock.close()


def test_what_fails_all_the_time_is_no_busy_loop(
    listener: PortListener, sock: FailingSocket
) -> None:
    sock.failures = [errno.EPERM] * 1000
    while listener.pause_s() is None:
        assert listener.accept() is None
    assert len(sock.failures) >= 900


def test_a_connection_that_closes_ends_the_pause(
    listener: PortListener, sock: FailingSocket
) -> None:
    with socket.create_connection(sock.getsockname()):
        first = listener.accept()
        sock.failures = [errno.EMFILE] * 10
        for _ in range(10):
            assert listener.accept() is None
            assert listener.pause_s() is not None
            listener.count_closed(0)
            assert listener.pause_s() is not None
            listener.count_closed(1)
            assert listener.pause_s() is None
    assert first is not None
    first.sock.close()


@pytest.mark.parametrize("spare", [0, 1], ids=["no-connection-open", "one-open"])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_server_without_descriptors_goes_on(start: Any, workers: int, spare: int) -> None:
    """Its limit is lowered while it runs, below the number of any that it may close meanwhile."""
    server = start(*NULL, "--workers", str(workers))
    port = server.port()
    clients = [connect(port) for _ in range(spare)]
    for client in clients:
        client.ping()
    process = psutil.Process(server.process.pid)
    usual = process.rlimit(psutil.RLIMIT_NOFILE)
    process.rlimit(psutil.RLIMIT_NOFILE, (3, usual[1]))
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S):
        line = server.read_until("cannot accept a connection")
        assert "Too many open files" in line
        for client in clients:
            client.ping()
        process.rlimit(psutil.RLIMIT_NOFILE, usual)
        late = connect(port)
        assert late.infer_batch(inference.InferenceParams("u", b"x")).label == "tench"
        late.close()
    for client in clients:
        client.close()
    server.process.terminate()
    assert server.wait() == 0
    assert server.log.count("cannot accept a connection") == 1
    assert "Traceback" not in server.log
