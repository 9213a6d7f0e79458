"""How long a client may be idle, take to send, and take to receive: three limits apart."""

from __future__ import annotations

import contextlib
import logging
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

TIMEOUT_S = 30
PING = b"\x80\x01\x00\x01\x00\x00\x00\x04ping\x00\x00\x00\x07\x00"
PING_REPLY = b"\x80\x01\x00\x02\x00\x00\x00\x04ping\x00\x00\x00\x07\x00"

Told = Callable[[str], threading.Event]


class _Watch(logging.Handler):
    """Sets an event once a log line holds a text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen = threading.Event()
        self._text = text

    def emit(self, record: logging.LogRecord) -> None:
        if self._text in record.getMessage():
            self.seen.set()


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Iterator[Told]:
    """told(text) is an event that a connection's log line with `text` sets."""
    caplog.set_level(logging.INFO, "service.wire.connection")
    logger = logging.getLogger("service.wire.connection")
    with contextlib.ExitStack() as stack:

        def watch(text: str) -> threading.Event:
            handler = _Watch(text)
            logger.addHandler(handler)
            stack.callback(logger.removeHandler, handler)
            return handler.seen

        yield watch


def call_for_megabytes(wire: Any) -> bytes:
    """A call whose reply has 3.5 MB: 100 images, 1000 classes of each."""
    params = wire.string(1, b"u1") + wire.string(2, b"x") + b"\0"
    requests = b"\x0f\x00\x01\x0c\x00\x00\x00\x64" + params * 100
    options = b"\x0c\x00\x02\x08\x00\x01\x00\x00\x03\xe8\x00"
    call: bytes = wire.header(b"infer_images") + requests + options + b"\0"
    return call


def receive_timeout(server: Any) -> tuple[int, int]:
    """The kernel's own limit of a server's one connection: seconds, microseconds."""
    (connection,) = server.server._connections.open()
    sock = connection._transport.sock
    packed = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, 16)
    seconds, microseconds = struct.unpack("@ll", packed)
    return seconds, microseconds


@pytest.mark.parametrize("pieces", [1, 2], ids=["message-at-once", "message-in-pieces"])
def test_an_idle_connection_is_closed_after_its_own_limit(
    serve: Any, wire: Any, told: Told, pieces: int
) -> None:
    """Which a message that came in pieces, and so had a limit of its own, does not change."""
    closed = told("nothing came within --idle-timeout-s = 0.2")
    server = serve(idle_timeout_s=0.2, message_timeout_s=60)
    with server.connect() as sock:
        if pieces == 2:
            sock.sendall(wire.infer_batch(b"x" * 50_000))
            assert b"tench" in sock.recv(1000)
        sock.sendall(PING)
        assert wire.read_all(sock) == PING_REPLY
    assert closed.wait(TIMEOUT_S)


def test_a_connection_that_has_never_said_anything_is_idle(
    serve: Any, wire: Any, told: Told
) -> None:
    closed = told("--idle-timeout-s = 0.1")
    with serve(idle_timeout_s=0.1).connect() as sock:
        assert wire.read_all(sock) == b""
    assert closed.wait(TIMEOUT_S)


def test_a_client_that_waits_for_its_reply_is_not_idle(
    serve: Any, scripted: Any, wire: Any
) -> None:
    server = serve(scripted, idle_timeout_s=0.1)
    with server.connect() as waiting, server.connect() as idle:
        waiting.sendall(wire.infer_batch(b"wait"))
        assert scripted.entered.acquire(timeout=TIMEOUT_S)
        assert wire.read_all(idle) == b"", "the limit has passed"
        scripted.release.set()
        assert b"class_0" in waiting.recv(1000)


@pytest.mark.parametrize(("idle_timeout_s", "expected"), [(600, (600, 0)), (0, (0, 0))])
def test_idle_connections_are_kept_for_minutes_or_for_ever(
    serve: Any, idle_timeout_s: float, expected: tuple[int, int]
) -> None:
    """The kernel keeps the limit: 0 is none."""
    server = serve(idle_timeout_s=idle_timeout_s)
    with server.connect() as sock:
        sock.sendall(PING)
        assert sock.recv(100) == PING_REPLY
        assert receive_timeout(server) == expected


@pytest.mark.parametrize("framed", [True, False], ids=["framed", "unframed"])
def test_a_message_of_a_byte_now_and_then_is_given_up(
    serve: Any, wire: Any, told: Told, framed: bool
) -> None:
    """However many bytes came in time: the limit is that of the whole message."""
    dropped = told("a message did not arrive within --message-timeout-s = 0.3")
    server = serve(message_timeout_s=0.3)
    message = wire.infer_batch(b"x" * 1_000_000)
    with server.connect() as sock, contextlib.suppress(OSError):
        for byte in wire.frame(message) if framed else message:
            if dropped.wait(0.02):
                break
            sock.sendall(bytes([byte]))
    assert dropped.is_set()


@pytest.mark.parametrize("reads", [False, True], ids=["never", "a-byte-now-and-then"])
def test_a_client_that_does_not_take_its_reply_is_given_up(
    serve: Any, wire: Any, told: Told, reads: bool
) -> None:
    """However many bytes it took in time: the limit is that of the whole reply."""
    dropped = told("it did not take its reply within --write-timeout-s = 0.3")
    server = serve(write_timeout_s=0.3)
    with server.connect() as sock:
        # More replies than the buffers between the two hold.
        sock.sendall(call_for_megabytes(wire) * 5)
        while reads and not dropped.wait(0.02):
            sock.recv(1)
        assert dropped.wait(TIMEOUT_S)


def test_a_slow_reply_has_its_own_limit_and_not_that_of_a_message(serve: Any, wire: Any) -> None:
    server = serve(message_timeout_s=0.1, write_timeout_s=60)
    with server.connect() as slow, server.connect() as dropped:
        slow.sendall(call_for_megabytes(wire) * 3)
        dropped.sendall(b"\x80\x01")
        assert wire.read_all(dropped) == b"", "the time of a message has passed"
        slow.shutdown(socket.SHUT_WR)
        assert wire.read_all(slow).count(wire.header(b"infer_images", 2)) == 3


def test_a_client_that_breaks_off_while_it_is_answered_is_no_slow_one(
    serve: Any, wire: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "service.wire.connection")
    server = serve()
    with server.connect() as sock:
        sock.sendall(call_for_megabytes(wire) * 5)
        sock.recv(1)
        # Unread bytes are left: the connection is reset.
    server.stop()
    (record,) = [r for r in caplog.records if r.name == "service.wire.connection"]
    assert record.levelno == logging.DEBUG
    assert "write-timeout" not in record.getMessage()
