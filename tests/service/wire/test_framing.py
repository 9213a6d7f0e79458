"""What a client may send, and what happens to one that sends something else."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import struct
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from idl import inference
from service.wire.buffer_budget import BufferBudget
from service.wire.framing import MessageReader
from service.wire.scanner import MessageLimits, ProtocolError
from service.wire.transport import PlainTransport, Timeouts
from tests.process_memory import peak_bytes

PING = b"\x80\x01\x00\x01\x00\x00\x00\x04ping\x00\x00\x00\x07\x00"
PING_REPLY = b"\x80\x01\x00\x02\x00\x00\x00\x04ping\x00\x00\x00\x07\x00"


def reader_of(sock: socket.socket) -> MessageReader:
    return MessageReader(PlainTransport(sock, Timeouts()), MessageLimits(), BufferBudget(2**30))


def assert_still_serves(server: Any) -> None:
    client = server.client()
    assert client.infer_batch(inference.InferenceParams("u", b"x")).label == "tench"
    client.close()


def refusal(reply: bytes) -> str:
    """What an unframed reply says with an exception, declared or not."""
    assert reply[:4] in (b"\x80\x01\x00\x02", b"\x80\x01\x00\x03")
    return reply.decode("utf-8", "replace")


@pytest.mark.parametrize("framed", [True, False], ids=["framed", "buffered"])
@pytest.mark.parametrize("payload_bytes", [0, 1, 5_000, 100_000, 3_000_000])
def test_thriftpy2_clients_of_both_styles_are_understood(
    null_server: Any, framed: bool, payload_bytes: int
) -> None:
    client = null_server.client(framed=framed)
    for _ in range(3):
        result = client.infer_batch(inference.InferenceParams("u", b"x" * payload_bytes))
        assert (result.label, result.score) == ("tench", 1.0)
    client.close()


@pytest.mark.parametrize("framed", [True, False], ids=["framed", "unframed"])
def test_a_message_may_arrive_byte_by_byte(null_server: Any, wire: Any, framed: bool) -> None:
    message = wire.infer_batch(b"x" * 50)
    with null_server.connect() as sock:
        for byte in wire.frame(message) if framed else message:
            sock.sendall(bytes([byte]))
        sock.shutdown(socket.SHUT_WR)
        reply = wire.read_all(sock)
    assert reply[:4] == (struct.pack(">i", len(reply) - 4) if framed else b"\x80\x01\x00\x02")
    assert b"tench" in reply


def test_both_styles_may_alternate_on_one_connection(null_server: Any, wire: Any) -> None:
    with null_server.connect() as sock:
        reply = wire.exchange(sock, PING + wire.frame(PING) + PING)
    assert reply == PING_REPLY + wire.frame(PING_REPLY) + PING_REPLY


def test_many_messages_may_be_sent_at_once(null_server: Any, wire: Any) -> None:
    """Pipelined calls are answered in order, however they lie in the receive buffer."""
    numbers = range(200)
    sent = b"".join(wire.infer_batch(b"x" * (number * 37), number) for number in numbers)
    with null_server.connect() as sock:
        sender = threading.Thread(target=sock.sendall, args=(sent,))
        sender.start()
        reply_bytes = len(wire.header(b"infer_batch")) + 3 + 7 + 5 + 3 + 8 + 2
        replies = b""
        while len(replies) < reply_bytes * len(numbers):
            replies += sock.recv(65536)
        sender.join()
    name_end = 8 + len(b"infer_batch")
    sequence_ids = [
        struct.unpack_from(">i", replies, index * reply_bytes + name_end)[0] for index in numbers
    ]
    assert sequence_ids == list(numbers)


def test_a_half_closed_client_still_gets_its_reply(null_server: Any, wire: Any) -> None:
    with null_server.connect() as sock:
        assert wire.exchange(sock, wire.frame(PING)) == wire.frame(PING_REPLY)


def test_a_connection_closed_between_messages_is_not_worth_a_log_line(
    serve: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "service.wire.connection")
    server = serve()
    with server.connect() as sock:
        sock.sendall(PING)
        assert sock.recv(100) == PING_REPLY
    server.stop()
    assert not [r for r in caplog.records if r.name == "service.wire.connection"]


@pytest.mark.parametrize("framed", [True, False], ids=["framed", "unframed"])
@pytest.mark.parametrize("length", [1, 3, 6, 20, 40])
def test_a_truncated_message_is_one_info_line(
    serve: Any, wire: Any, caplog: pytest.LogCaptureFixture, framed: bool, length: int
) -> None:
    caplog.set_level(logging.INFO, "service.wire.connection")
    server = serve()
    message = wire.infer_batch(b"x" * 100)
    with server.connect() as sock:
        assert wire.exchange(sock, (wire.frame(message) if framed else message)[:length]) == b""
    server.stop()
    (record,) = [r for r in caplog.records if r.name == "service.wire.connection"]
    assert record.levelno == logging.INFO
    assert f"after {length} bytes" in record.getMessage()


@pytest.mark.parametrize(
    ("start", "hint"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "an HTTP request"),
        (b"POST / HTTP/1.1\r\n\r\n", "an HTTP request"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01", "a TLS handshake"),
        (b"\x82\x21\x00\x04ping\x00", "compact protocol"),
        (b"\x00\x00\x00\x04ping\x01\x00\x00\x00\x00\x00", "strict binary"),
        (b"\x00\x00\x00\x00" + PING, "strict binary"),
        (b"\xff\xff\xff\xff" + PING, "strict binary"),
        (b"\x80\x00\x00\x00" + PING, "strict binary"),
    ],
    ids=["get", "post", "tls", "compact", "not-strict", "empty-frame", "negative", "lowest"],
)
def test_another_protocol_is_closed_with_a_hint_in_the_log(
    serve: Any, wire: Any, caplog: pytest.LogCaptureFixture, start: bytes, hint: str
) -> None:
    server = serve()
    # Closing with unread bytes may reset the connection.
    with server.connect() as sock, contextlib.suppress(ConnectionResetError):
        answer = wire.exchange(sock, start)
        assert answer.startswith(b"HTTP/1.1 400 " if "HTTP" in hint else b"")
    assert_still_serves(server)
    server.stop()
    (record,) = [r for r in caplog.records if r.name == "service.wire.connection"]
    assert hint in record.getMessage()
    assert "closed 127.0.0.1:" in record.getMessage()


@pytest.mark.parametrize("announced_bytes", [1_000_001, 2**31 - 1])
def test_a_frame_above_the_limit_is_refused_by_its_header(
    serve: Any, wire: Any, announced_bytes: int
) -> None:
    """The client is told, before it has sent anything but the length."""
    server = serve(max_frame_bytes=1_000_000)
    with server.connect() as sock:
        reply = wire.exchange(sock, struct.pack(">i", announced_bytes))
    assert struct.unpack(">i", reply[:4])[0] == len(reply) - 4
    assert f"a frame of {announced_bytes} bytes was announced" in refusal(reply[4:])
    assert "--max-frame-bytes allows 1000000" in refusal(reply[4:])
    assert_still_serves(server)


@pytest.mark.parametrize("framed", [True, False], ids=["framed", "buffered"])
def test_a_client_that_sends_too_large_a_message_reads_why(serve: Any, framed: bool) -> None:
    """Even though it sends all of it before it looks for a reply."""
    server = serve(max_frame_bytes=100_000)
    client = server.client(framed=framed)
    with pytest.raises(Exception, match="--max-frame-bytes allows 100000"):
        client.infer_batch(inference.InferenceParams("u", b"x" * 4_000_000))
    client.close()
    assert_still_serves(server)


def test_a_message_exactly_at_the_limit_is_served(serve: Any, wire: Any) -> None:
    message = wire.infer_batch(b"x" * 1000)
    server = serve(max_frame_bytes=len(message))
    for data in (message, wire.frame(message)):
        with server.connect() as sock:
            assert b"tench" in wire.exchange(sock, data)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"\x0b\x00\x01\x7f\xff\xff\xff", id="string-of-2-GiB"),
        pytest.param(b"\x0b\x00\x01\xff\xff\xff\xff", id="negative-string"),
        pytest.param(b"\x0f\x00\x01\x0c\x7f\xff\xff\xff", id="list-of-2-G-structs"),
        pytest.param(b"\x0f\x00\x01\x0c\xff\xff\xff\xff", id="negative-list"),
        pytest.param(b"\x0e\x00\x01\x02\x7f\xff\xff\xff", id="set-of-2-G-bools"),
        pytest.param(b"\x0d\x00\x01\x0b\x0b\x7f\xff\xff\xff", id="map-of-2-G-strings"),
        pytest.param(b"\x0d\x00\x01\x0b\x0b\x80\x00\x00\x00", id="negative-map"),
        pytest.param(b"\x0f\x00\x01\x05\x00\x00\x00\x01\x00\x00", id="list-of-unknown-type"),
        pytest.param(b"\x63\x00\x01" + b"\0" * 8, id="unknown-field-type"),
        pytest.param(b"\x0c\x00\x01" * 100_000, id="deep-structs"),
        pytest.param(b"\x0f\x00\x01" + b"\x0f\x00\x00\x00\x01" * 100_000, id="deep-lists"),
        pytest.param(
            b"\x0f\x00\x01\x0c" + struct.pack(">i", 1_000_000) + b"\0" * 1_000_000,
            id="list-of-1-M-empty-structs",
        ),
    ],
)
@pytest.mark.parametrize("framed", [True, False], ids=["framed", "unframed"])
def test_a_malformed_message_is_refused_with_an_exception(
    null_server: Any, wire: Any, body: bytes, framed: bool
) -> None:
    message = wire.header(b"infer_images") + body + b"\0" * 8
    with null_server.connect() as sock:
        reply = wire.exchange(sock, wire.frame(message) if framed else message)
    text = refusal(reply[4:] if framed else reply)
    assert any(word in text for word in ("allows", "negative", "unknown", "deeper", "more than"))
    assert b"\x00\x00\x00\x07" in reply, "the call's number is echoed"
    assert_still_serves(null_server)


def test_a_string_longer_than_its_frame_is_refused(null_server: Any, wire: Any) -> None:
    """thriftpy2 alone would hand out uninitialised memory here."""
    params = wire.string(1, b"u1") + wire.string(2, b"xy", length=5000)
    message = wire.header(b"infer_batch") + wire.STRUCT_1 + params + b"\0\0"
    with null_server.connect() as sock:
        reply = wire.exchange(sock, wire.frame(message))
    assert "its frame allows" in refusal(reply[4:])


def test_bytes_behind_the_message_in_its_frame_are_refused(null_server: Any, wire: Any) -> None:
    with null_server.connect() as sock:
        reply = wire.exchange(sock, wire.frame(PING + b"extra"))
    assert f"in a frame of {len(PING) + 5} bytes has {len(PING)} bytes" in refusal(reply[4:])


@pytest.mark.parametrize("message_type", [2, 3, 4, 9])
def test_a_message_that_is_no_call_is_refused(
    null_server: Any, wire: Any, message_type: int
) -> None:
    message = wire.header(b"ping", message_type) + b"\0"
    with null_server.connect() as sock:
        reply = wire.exchange(sock, message)
    assert f"type {message_type}" in refusal(reply)


def test_a_message_that_never_ends_is_given_up(
    serve: Any, wire: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "service.wire.connection")
    server = serve(message_timeout_s=0.05)
    with server.connect() as sock:
        sock.sendall(wire.infer_batch(b"x" * 100)[:60])
        assert wire.read_all(sock) == b""
    server.stop()
    assert "--message-timeout-s = 0.05" in caplog.text


def send_byte_by_byte_for_ever(sock: socket.socket) -> None:
    while True:
        sock.sendall(b"x")


def test_a_message_that_trickles_in_is_given_up(
    serve: Any, wire: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The limit is for the whole message: each byte in time does not extend it."""
    caplog.set_level(logging.INFO, "service.wire.connection")
    server = serve(message_timeout_s=0.05)
    with server.connect() as sock:
        start = wire.header(b"infer_batch") + wire.string(2, b"", length=15_000_000)
        sock.sendall(struct.pack(">i", 16_000_000) + start)
        with pytest.raises(OSError, match=r"reset|pipe"):
            send_byte_by_byte_for_ever(sock)
    server.stop()
    assert "--message-timeout-s = 0.05" in caplog.text


def test_the_time_limit_of_messages_does_not_touch_an_idle_connection(
    serve: Any, scripted: Any, wire: Any
) -> None:
    """Neither while it waits for a reply longer than the limit, nor between messages."""
    server = serve(scripted, message_timeout_s=0.05)
    with server.connect() as idle, server.connect() as dropped:
        # Larger than the first buffer, so that its time limit is set, and must be lifted again.
        idle.sendall(wire.infer_batch(b"wait" + b"x" * 50_000))
        assert scripted.entered.acquire(timeout=30)
        dropped.sendall(wire.infer_batch()[:20])
        assert wire.read_all(dropped) == b"", "the limit has passed"
        scripted.release.set()
        assert b"tench" not in idle.recv(1000)
        idle.sendall(PING)
        assert idle.recv(100) == PING_REPLY


def test_a_client_that_does_not_read_its_replies_is_given_up(
    serve: Any, wire: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "service.wire.connection")
    server = serve(write_timeout_s=0.1)
    params = wire.string(1, b"u1") + wire.string(2, b"x") + b"\0"
    requests = b"\x0f\x00\x01\x0c\x00\x00\x00\x64" + params * 100
    options = b"\x0c\x00\x02\x08\x00\x01\x00\x00\x03\xe8\x00"
    call_for_megabytes = wire.header(b"infer_images") + requests + options + b"\0"
    with server.connect() as sock:
        sock.sendall(call_for_megabytes * 20)
        # Unread calls are left when it closes, so the connection is reset: no need to read.
        hang_up = select.poll()
        hang_up.register(sock, 0)
        assert hang_up.poll(30_000)
    server.stop()
    assert "did not take its reply" in caplog.text


def test_an_announced_length_costs_no_memory(wire: Any) -> None:
    """Memory grows with what arrives, not with what is announced."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        fields = b"".join(wire.string(number, b"x" * 33) for number in range(500))
        message = wire.header(b"infer_batch") + fields
        theirs.sendall(struct.pack(">i", 16_000_000) + message)
        theirs.shutdown(socket.SHUT_WR)
        tracemalloc.start()
        try:
            with pytest.raises(EOFError, match=f"after {len(message) + 4} bytes"):
                reader_of(ours).read()
            peak_bytes = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak_bytes < 500_000


def test_an_announced_string_costs_no_memory(wire: Any) -> None:
    """No more of it is resident than has arrived."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(
            wire.header(b"infer_batch") + wire.string(2, b"x" * 20_000, length=16_000_000)
        )
        theirs.shutdown(socket.SHUT_WR)
        reader = reader_of(ours)
        # Forget the process's peak so far; see proc_pid_clear_refs(5).
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        before_bytes = peak_bytes(os.getpid())
        with pytest.raises(EOFError):
            reader.read()
        assert peak_bytes(os.getpid()) - before_bytes < 2_000_000


def test_a_large_buffer_is_given_back_after_its_message(wire: Any) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:

        def send() -> None:
            theirs.sendall(wire.infer_batch(b"x" * 8_000_000))
            theirs.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        reader = reader_of(ours)
        tracemalloc.start()
        try:
            sender.start()
            assert reader.read() is not None
            assert reader.read() is None
            sender.join()
            held_bytes = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
    assert held_bytes < 1_000_000


def test_the_reader_says_what_it_refuses(wire: Any) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(wire.frame(wire.header(b"x" * 300) + b"\0"))
        with pytest.raises(ProtocolError, match="name has 300 bytes, at most 255"):
            reader_of(ours).read()
