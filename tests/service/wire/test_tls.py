"""TLS between real clients and real servers."""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from thriftpy2.rpc import make_client
from thriftpy2.transport import TCyBufferedTransportFactory, TCyFramedTransportFactory

from idl import inference
from service.cli import main
from tests.service.certificates import Authority

TIMEOUT_S = 30
NULL = ("-m", "service", "--handler", "null", "--port", "0")
PING = b"\x80\x01\x00\x01\x00\x00\x00\x04ping\x00\x00\x00\x07\x00"
PING_REPLY = b"\x80\x01\x00\x02\x00\x00\x00\x04ping\x00\x00\x00\x07\x00"

Params = inference.InferenceParams
Lines = Callable[[], list[logging.LogRecord]]


class Files(NamedTuple):
    """Two authorities, what the first of them signed, and a client that the second one signed."""

    ca: Path
    server: tuple[Path, Path]
    client: tuple[Path, Path]
    stranger: tuple[Path, Path]
    encrypted: tuple[Path, Path]

    def settings(self, *, mutual: bool = True) -> dict[str, str]:
        given = {"tls_cert": str(self.server[0]), "tls_key": str(self.server[1])}
        return {**given, "tls_ca": str(self.ca)} if mutual else given

    def options(self) -> list[str]:
        return [
            part
            for name, value in self.settings().items()
            for part in (f"--{name.replace('_', '-')}", value)
        ]

    def context(self, shown: tuple[Path, Path] | None) -> ssl.SSLContext:
        """A client's side that knows the server's authority, and shows a certificate."""
        context = ssl.create_default_context(cafile=str(self.ca))
        if shown is not None:
            context.load_cert_chain(*shown)
        return context


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("certificates")
    authority, other = Authority(folder, "authority"), Authority(folder, "other")
    return Files(
        authority.certificate,
        authority.issue("server"),
        authority.issue("client"),
        other.issue("stranger"),
        authority.issue("encrypted", b"secret"),
    )


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Lines:
    """What the connections have logged, at info level and above."""
    caplog.set_level(logging.INFO, "service.wire.connection")
    return lambda: [r for r in caplog.records if r.name == "service.wire.connection"]


def connect(port: int, context: ssl.SSLContext) -> ssl.SSLSocket:
    sock = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S)
    return context.wrap_socket(sock, server_hostname="127.0.0.1")


def thrift_client(port: int, context: ssl.SSLContext, *, framed: bool = True) -> Any:
    factory = TCyFramedTransportFactory() if framed else TCyBufferedTransportFactory()
    return make_client(
        inference.InferenceService,
        "127.0.0.1",
        port,
        trans_factory=factory,
        timeout=TIMEOUT_S * 1000,
        ssl_context=context,
    )


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
@pytest.mark.parametrize("framed", [True, False], ids=["framed", "unframed"])
def test_clients_with_a_certificate_are_served(
    serve: Any, files: Files, framed: bool, version: str
) -> None:
    server = serve(**files.settings())
    context = files.context(files.client)
    context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    with closing(thrift_client(server.port, context, framed=framed)) as client:
        for size_bytes in (0, 1, 5_000, 16_384, 3_000_000, 100):
            assert client.infer_batch(Params("u", b"x" * size_bytes)).label == "tench"
        large = client.infer_images([Params("u", b"x")] * 100, inference.InferOptions(top_k=1000))
        assert [len(result.top_k) for result in large] == [1000] * 100


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
@pytest.mark.parametrize("framed", [True, False], ids=["framed", "unframed"])
def test_beyond_the_limit_of_connections_clients_are_told(
    serve: Any, files: Files, framed: bool, version: str
) -> None:
    server = serve(**files.settings(), max_connections=1)
    context = files.context(files.client)
    context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    with closing(thrift_client(server.port, context)) as first:
        first.ping()
        for size_bytes in (1, 20_000, 3_000_000) * 4:
            with closing(thrift_client(server.port, context, framed=framed)) as client:
                client.ping()
            with (
                closing(thrift_client(server.port, context, framed=framed)) as client,
                pytest.raises(inference.Overloaded, match="1 connections are open"),
            ):
                client.infer_batch(Params("u", b"x" * size_bytes))
        assert first.infer_batch(Params("u", b"x")).label == "tench"


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
@pytest.mark.parametrize("shown", ["nothing", "another authority's"])
def test_a_client_without_a_certificate_of_ours_is_refused(
    serve: Any, files: Files, lines: Lines, shown: str, version: str
) -> None:
    server = serve(**files.settings())
    context = files.context(None if shown == "nothing" else files.stranger)
    context.minimum_version = context.maximum_version = ssl.TLSVersion[version]

    def ask() -> None:
        # With TLS 1.3 the client is told when it first reads.
        with connect(server.port, context) as sock:
            sock.sendall(PING)
            sock.recv(1)

    with pytest.raises(ssl.SSLError, match=r"(?i)alert"):
        ask()
    server.stop()
    (line,) = lines()
    assert line.levelno == logging.WARNING
    assert "the TLS handshake failed (" in line.getMessage()
    assert line.exc_info is None


def test_without_an_authority_clients_need_no_certificate(serve: Any, files: Files) -> None:
    server = serve(**files.settings(mutual=False))
    with connect(server.port, files.context(None)) as sock:
        sock.sendall(PING)
        assert sock.recv(100) == PING_REPLY


@pytest.mark.parametrize(
    ("start", "hint"),
    [
        (PING, "no TLS handshake; this port takes TLS connections only, because of --tls-cert"),
        (b"\0\0\0\x11" + PING, "no TLS handshake"),
        (b"\x80", "no TLS handshake"),
        (b"GET / HTTP/1.1\r\n\r\n", "an HTTP request; this port takes TLS connections only"),
    ],
    ids=["unframed", "framed", "one-byte", "http"],
)
def test_a_plain_client_is_refused_at_once_with_one_line(
    serve: Any, files: Files, wire: Any, lines: Lines, start: bytes, hint: str
) -> None:
    server = serve(**files.settings())
    with server.connect() as sock:
        sock.sendall(start)
        # It does not wait for more: nothing more is sent here.
        assert wire.read_all(sock) == b""
    server.stop()
    (line,) = lines()
    assert hint in line.getMessage()


def test_broken_handshakes_and_records_cost_their_own_connection_only(
    serve: Any, files: Files, wire: Any, lines: Lines
) -> None:
    server = serve(**files.settings())
    context = files.context(files.client)
    with closing(thrift_client(server.port, context)) as neighbour:
        with server.connect() as sock, contextlib.suppress(ConnectionResetError):
            wire.exchange(sock, b"\x16\x03\x01\x00\x05hello")
        broken = connect(server.port, context)
        with socket.socket(fileno=broken.detach()) as sock:
            sock.settimeout(TIMEOUT_S)
            sock.sendall(b"\x17\x03\x03\x00\x20" + b"?" * 32)
            assert wire.read_all(sock) != b"", "an alert"
        neighbour.ping()
    server.stop()
    assert sorted(line.getMessage().split(": ")[1].split(" (")[0] for line in lines()) == [
        "the TLS handshake failed",
        "the TLS records are broken",
    ]


def test_a_handshake_that_never_ends_is_dropped_and_costs_no_one_else(
    serve: Any, files: Files, wire: Any, lines: Lines
) -> None:
    """Whether the client is silent, or stops in the middle of its first record."""
    server = serve(**files.settings(), message_timeout_s=0.2)
    with server.connect() as silent, server.connect() as halfway:
        halfway.sendall(b"\x16\x03\x01\x02\x00\x01")
        with closing(thrift_client(server.port, files.context(files.client))) as client:
            client.ping()
        assert wire.read_all(silent) == b""
        assert wire.read_all(halfway) == b""
    server.stop()
    assert ["--message-timeout-s = 0.2" in line.getMessage() for line in lines()] == [True] * 2


def test_a_probe_of_the_port_is_not_worth_a_log_line(
    serve: Any, files: Files, lines: Lines
) -> None:
    server = serve(**files.settings())
    server.connect().close()
    with closing(thrift_client(server.port, files.context(files.client))) as client:
        client.ping()
    server.stop()
    assert lines() == []


def test_a_client_that_leaves_during_its_handshake_is_one_line(
    serve: Any, files: Files, wire: Any, lines: Lines
) -> None:
    server = serve(**files.settings())
    with server.connect() as sock:
        assert wire.exchange(sock, b"\x16\x03\x01\x02\x00\x01") == b""
    server.stop()
    (line,) = lines()
    assert "before the end of its handshake" in line.getMessage()


def test_a_record_that_trickles_in_is_given_up(
    serve: Any, files: Files, wire: Any, lines: Lines
) -> None:
    """Bytes of which no whole record has come are the beginning of a message."""
    server = serve(**files.settings(), message_timeout_s=0.2)
    secured = connect(server.port, files.context(files.client))
    with socket.socket(fileno=secured.detach()) as sock:
        sock.settimeout(TIMEOUT_S)
        sock.sendall(b"\x17\x03")
        wire.read_all(sock)
    server.stop()
    (line,) = lines()
    assert "--message-timeout-s = 0.2" in line.getMessage()


def test_an_idle_connection_outlives_the_time_of_a_message_and_not_its_own(
    serve: Any, files: Files, lines: Lines
) -> None:
    server = serve(**files.settings(), message_timeout_s=0.1, idle_timeout_s=0.5)
    with connect(server.port, files.context(files.client)) as sock:
        with server.connect() as dropped:
            assert dropped.recv(1) == b"", "the time of a message has passed"
        sock.sendall(PING)
        assert sock.recv(100) == PING_REPLY
        assert sock.recv(100) == b"", "with TLS's goodbye"
    server.stop()
    assert "--idle-timeout-s = 0.5" in lines()[-1].getMessage()


def test_a_message_beyond_a_limit_is_answered_through_tls(serve: Any, files: Files) -> None:
    server = serve(**files.settings(), max_frame_bytes=100_000)
    told = "--max-frame-bytes allows 100000"
    with (
        closing(thrift_client(server.port, files.context(files.client))) as client,
        pytest.raises(inference.InvalidRequest, match=told),
    ):
        client.infer_batch(Params("u", b"x" * 4_000_000))


def test_requests_in_flight_are_answered_and_idle_ones_told_goodbye_when_it_stops(
    serve: Any, scripted: Any, files: Files
) -> None:
    """The drain wakes a read that waits for a record."""
    server = serve(scripted, **files.settings(), drain_timeout_s=3600)
    context = files.context(files.client)
    labels: list[str] = []
    with (
        connect(server.port, context) as idle,
        closing(thrift_client(server.port, context)) as busy,
    ):
        thread = threading.Thread(
            target=lambda: labels.append(busy.infer_batch(Params("u", b"wait")).label)
        )
        thread.start()
        assert scripted.entered.acquire(timeout=TIMEOUT_S)
        server.server.stop()
        # An end without TLS's goodbye would raise here.
        idle.suppress_ragged_eofs = False
        assert idle.recv(1) == b""
        scripted.release.set()
        thread.join()
    server.join()
    assert labels == ["class_0"]
    assert server.cut_off == 0


def test_workers_shake_hands_themselves(start: Any, files: Files) -> None:
    server = start(*NULL, "--workers", "2", *files.options())
    port = server.port()
    clients = [thrift_client(port, files.context(files.client)) for _ in range(4)]
    assert {client.server_info().worker for client in clients} == {0, 1}
    server.process.send_signal(signal.SIGTERM)
    assert server.wait() == 0
    for client in clients:
        client.close()


def test_files_that_cannot_work_are_told_in_one_line(
    files: Files, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    nothing = tmp_path / "nothing.pem"
    nothing.write_text("no certificate\n")
    locked = tuple(map(str, files.encrypted))
    cert, key = map(str, files.server)
    ca = str(files.ca)
    mistakes: list[tuple[tuple[str, ...], str]] = [
        (("--tls-cert", cert), "--tls-cert and --tls-key go together"),
        (("--tls-key", key), "--tls-cert and --tls-key go together"),
        (("--tls-ca", ca), "needs --tls-cert and --tls-key"),
        (("--tls-cert", cert + "x", "--tls-key", key), f"did you mean {cert}?"),
        (("--tls-cert", cert, "--tls-key", str(files.client[1])), "not that of the certificate"),
        (("--tls-cert", str(nothing), "--tls-key", key), "not a certificate and its key in PEM"),
        (("--tls-cert", locked[0], "--tls-key", locked[1]), "the key is encrypted"),
        (("--tls-cert", cert, "--tls-key", key, "--tls-ca", str(nothing)), "no certificates in"),
    ]
    for arguments, told in mistakes:
        assert main(["--handler", "null", "--port", "0", *arguments]) == 2
        error = capfd.readouterr().err
        assert error.startswith("error: ")
        assert error.count("\n") == 1
        assert told in error
