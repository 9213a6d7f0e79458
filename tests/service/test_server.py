"""The server's life, in this process."""

from __future__ import annotations

import logging
import re
import socket
import threading
from typing import Any

import numpy as np
import pytest

from idl import inference
from service.accepting.listener import PortListener
from service.errors import ConfigurationError
from service.handlers.outcomes import Scores
from service.options.server_settings import ServerSettings
from service.server import Server

Params = inference.InferenceParams


def test_no_client_is_let_in_before_the_handler_is_warm(scripted: Any) -> None:
    refused: list[bool] = []

    def load() -> Any:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(listener.address)
        refused.append(True)
        return scripted

    listener = PortListener(ServerSettings(port=0))
    with Server(ServerSettings(), "null", load, listener) as server:
        server.startup()
        assert refused
        assert scripted.deadlines, "it was warmed up"
        with socket.create_connection(listener.address):
            assert server.ready
        server.shutdown()
    assert scripted.closed


def test_one_line_says_that_and_where_it_is_ready(
    serve: Any, scripted: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    server = serve(scripted)
    (line,) = [r.getMessage() for r in caplog.records if "ready: " in r.getMessage()]
    expected = f"ready: null handler (scripted, fp32, model.onnx) on 127.0.0.1:{server.port}"
    assert line == expected


def test_a_port_in_use_is_told_before_the_handler_is_loaded(null_server: Any) -> None:
    def load() -> Any:
        pytest.fail("loaded")

    settings = ServerSettings(port=null_server.port)
    with (
        Server(settings, "null", load, PortListener(settings)) as server,
        pytest.raises(OSError, match=f"port {null_server.port} on 127.0.0.1 is in use"),
    ):
        server.run()


def test_a_handler_whose_labels_do_not_fit_is_closed_and_the_port_is_free(
    scripted: Any, tmp_path: Any
) -> None:
    (tmp_path / "labels.txt").write_text("a\nb\n")
    settings = ServerSettings(port=0, labels=str(tmp_path / "labels.txt"))
    with (
        Server(settings, "null", lambda: scripted, PortListener(settings)) as server,
        pytest.raises(ConfigurationError, match="2 labels, the model has 5 classes"),
    ):
        server.run()
    assert scripted.closed


def test_a_handler_that_cannot_classify_does_not_get_ready(scripted: Any) -> None:
    scripted._outcome = lambda _: Scores(np.zeros(3, dtype=np.float32))
    settings = ServerSettings(port=0)
    with (
        Server(settings, "null", lambda: scripted, PortListener(settings)) as server,
        pytest.raises(ConfigurationError, match=r"shape \(3,\); a classifier of 5 classes"),
    ):
        server.run()
    assert scripted.closed


def test_requests_in_flight_are_answered_when_it_stops(
    serve: Any, scripted: Any, wire: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """All of them; idle connections are closed, and the handler last."""
    caplog.set_level(logging.INFO)
    server = serve(scripted)
    idle = server.connect()
    clients = [server.client(framed=n % 2 == 0) for n in range(3)]
    results: list[Any] = []
    threads = [
        threading.Thread(target=lambda c=c: results.append(c.infer_batch(Params("u", b"wait"))))
        for c in clients
    ]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert scripted.entered.acquire(timeout=30)
    server.server.stop()
    assert wire.read_all(idle) == b"", "closed at once"
    with pytest.raises(ConnectionRefusedError):
        server.connect()
    assert not scripted.closed
    scripted.release.set()
    for thread in threads:
        thread.join()
    server.join()
    assert [result.label for result in results] == ["class_0"] * 3
    assert server.cut_off == 0
    assert scripted.closed
    assert "finishing 3 requests in flight" in caplog.text
    idle.close()


def test_a_request_that_is_still_arriving_is_answered_when_it_stops(
    serve: Any, wire: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    server = serve()
    message = wire.infer_batch(b"x" * 16_000_000)
    idle = server.connect()
    with server.connect() as sock:
        # More than all buffers between the two hold, so that the server has begun to read it.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        sock.sendall(message[:-1])
        server.server.stop()
        assert wire.read_all(idle) == b""
        sock.sendall(message[-1:])
        assert b"tench" in wire.read_all(sock)
    server.join()
    assert server.cut_off == 0
    assert "finishing 1 requests in flight" in caplog.text
    idle.close()


def test_what_is_not_finished_in_time_is_cut_off_and_counted(
    serve: Any, scripted: Any, wire: Any, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve(scripted, drain_timeout_s=0.05)
    # Accepted in this order: once the request runs, both connections are open.
    with server.connect() as idle, server.connect() as sock:
        sock.sendall(wire.infer_batch(b"wait"))
        assert scripted.entered.acquire(timeout=30)
        server.stop()
        assert wire.read_all(sock) == b""
        assert wire.read_all(idle) == b""
    assert server.cut_off == 1
    assert "1 requests were cut off" in caplog.text
    assert "--drain-timeout-s = 0.05" in caplog.text
    assert not scripted.closed, "a call still runs in it"
    scripted.release.set()


def test_an_idle_server_stops_without_waiting(serve: Any) -> None:
    server = serve(drain_timeout_s=3600)
    connections = [server.connect() for _ in range(20)]
    server.stop()
    assert server.cut_off == 0
    for connection in connections:
        connection.close()


def test_replies_leave_without_delay(null_server: Any) -> None:
    """TCP_NODELAY is on for each connection: an unframed reply never waits for an ACK."""
    client = null_server.client()
    client.ping()
    (connection,) = null_server.server._connections.open()
    assert connection._transport.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
    assert connection._transport.sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    client.close()


def test_once_it_has_stopped_none_of_its_threads_runs_any_more(serve: Any) -> None:
    """A thread in its last steps may crash native libraries that are taken down under it."""
    before = set(threading.enumerate())
    for _ in range(20):
        server = serve()
        clients = [server.client() for _ in range(5)]
        for client in clients:
            client.ping()
        server.stop()
        assert set(threading.enumerate()) <= before
        for client in clients:
            client.close()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"port": -1}, "port must be 0 to 65535, got -1"),
        ({"port": 65536}, "port must be 0 to 65535, got 65536"),
        ({"max_frame_bytes": 0}, "max_frame_bytes must be at least 1, got 0"),
        ({"max_image_pixels": 0}, "max_image_pixels must be at least 1, got 0"),
        ({"max_images_per_call": 0}, "max_images_per_call must be at least 1, got 0"),
        ({"max_queue": -1}, "max_queue must be at least 0, got -1"),
        ({"default_timeout_ms": -1}, "default_timeout_ms must be at least 0, got -1"),
        ({"max_connections": 0}, "max_connections must be at least 1, got 0"),
        ({"workers": 0}, "workers must be 1 to 256, got 0"),
        ({"max_string_bytes": 0}, "max_string_bytes must be at least 1, got 0"),
        ({"max_message_values": 0}, "max_message_values must be at least 1, got 0"),
        ({"max_message_depth": 0}, "max_message_depth must be 1 to 64, got 0"),
        ({"max_message_depth": 65}, "max_message_depth must be 1 to 64, got 65; deeper ones"),
        ({"message_timeout_s": 0}, "message_timeout_s must be above 0 and finite, got 0"),
        (
            {"message_timeout_s": float("inf")},
            "message_timeout_s must be above 0 and finite, got inf",
        ),
        ({"write_timeout_s": 0}, "write_timeout_s must be above 0 and finite, got 0"),
        ({"idle_timeout_s": -1}, "idle_timeout_s must be at least 0 and finite, got -1"),
        ({"drain_delay_s": -1}, "drain_delay_s must be at least 0 and finite, got -1"),
        ({"drain_timeout_s": -1}, "drain_timeout_s must be at least 0 and finite, got -1"),
        (
            {"drain_timeout_s": float("nan")},
            "drain_timeout_s must be at least 0 and finite, got nan",
        ),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        ServerSettings(**settings)


@pytest.mark.parametrize(
    ("name", "given", "limit"),
    [
        ("drain_timeout_s", 1e300, "at least 0 and finite and at most 100000000, got 1e+300"),
        ("message_timeout_s", 1e9, "above 0 and finite and at most 100000000, got 1000000000.0"),
        ("max_image_pixels", 10**40, "at least 1 and at most 1000000000000, got 1000"),
        ("max_queue", 10**40, "at least 0 and at most 1000000000000, got 1000"),
    ],
)
def test_numbers_that_are_too_large_to_wait_or_count_for(
    name: str, given: float, limit: str
) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(limit)):
        ServerSettings(**{name: given})  # type: ignore[arg-type]
