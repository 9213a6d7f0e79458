"""What a message may cost: each limit says itself, its value and its option."""

from __future__ import annotations

import logging
import struct
from typing import Any

import pytest
from thriftpy2.protocol import TCyBinaryProtocol
from thriftpy2.thrift import TApplicationException, TMessageType
from thriftpy2.transport import TCyMemoryBuffer

from idl import inference

REPLY, EXCEPTION = TMessageType.REPLY, TMessageType.EXCEPTION
LIMITS = {
    "max_frame_bytes": 20_000,
    "max_string_bytes": 5_000,
    "max_message_values": 100,
    "max_message_depth": 4,
}

STRUCTS = b"\x0c\x00\x09" * 4 + b"\0" * 4


def strings(count: int, length: int) -> bytes:
    """Fields that no method has."""
    field = struct.pack(">bhi", 11, 9, length) + b"x" * length
    return field * count


BEYOND = {
    "frame": (strings(5, 4_900), r"--max-frame-bytes allows 20000"),
    "string": (strings(1, 5_001), r"a string of 5001 bytes .* --max-string-bytes allows 5000"),
    "values": (strings(101, 1), r"--max-message-values allows, which is 100"),
    "depth": (STRUCTS, r"--max-message-depth allows, which is 4 levels"),
}


def decoded(reply: bytes, result: Any) -> tuple[str, int, int, Any]:
    """Name, message type, sequence id and content of an unframed reply."""
    protocol: Any = TCyBinaryProtocol(TCyMemoryBuffer(reply))
    name, message_type, sequence_id = protocol.read_message_begin()
    content = TApplicationException() if message_type == EXCEPTION else result()
    protocol.read_struct(content)
    return name, message_type, sequence_id, content


@pytest.mark.parametrize("framed", [True, False], ids=["framed", "unframed"])
@pytest.mark.parametrize("beyond", BEYOND)
def test_a_method_that_declares_invalid_request_answers_with_it(
    serve: Any, wire: Any, caplog: pytest.LogCaptureFixture, beyond: str, framed: bool
) -> None:
    """Then the connection is closed, with one line in the log and no stack trace."""
    body, told = BEYOND[beyond]
    server = serve(**LIMITS)
    message = wire.header(b"infer_images", 1, 42) + body + b"\0"
    with server.connect() as sock:
        # The stream cannot be read on behind it: this is not answered.
        after = wire.header(b"ping") + b"\0"
        reply = wire.exchange(sock, (wire.frame(message) if framed else message) + after)
    if framed:
        assert struct.unpack(">i", reply[:4])[0] == len(reply) - 4
        reply = reply[4:]
    name, message_type, sequence_id, content = decoded(
        reply, inference.InferenceService.infer_images_result
    )
    assert (name, message_type, sequence_id) == ("infer_images", REPLY, 42)
    with pytest.raises(inference.InvalidRequest, match=told):
        raise content.invalid_request
    server.stop()
    (record,) = [r for r in caplog.records if r.name == "service.wire.connection"]
    assert content.invalid_request.message in record.getMessage()
    assert record.exc_info is None


@pytest.mark.parametrize("beyond", BEYOND)
@pytest.mark.parametrize("method", [b"ping", b"unknown"])
def test_other_methods_answer_with_a_protocol_error(
    serve: Any, wire: Any, beyond: str, method: bytes
) -> None:
    body, told = BEYOND[beyond]
    with serve(**LIMITS).connect() as sock:
        reply = wire.exchange(sock, wire.header(method, 1, 42) + body + b"\0")
    name, message_type, sequence_id, content = decoded(reply, None)
    assert (name.encode(), message_type, sequence_id) == (method, EXCEPTION, 42)
    assert content.type == TApplicationException.PROTOCOL_ERROR
    with pytest.raises(TApplicationException, match=told):
        raise content


@pytest.mark.parametrize("framed", [True, False], ids=["framed", "unframed"])
def test_malformed_bytes_of_any_method_are_a_protocol_error(
    null_server: Any, wire: Any, framed: bool
) -> None:
    message = wire.header(b"infer_images", 1, 42) + wire.string(1, b"", length=-1)
    with null_server.connect() as sock:
        reply = wire.exchange(sock, wire.frame(message) if framed else message)
    _, message_type, sequence_id, content = decoded(reply[4:] if framed else reply, None)
    assert (message_type, sequence_id) == (EXCEPTION, 42)
    assert content.type == TApplicationException.PROTOCOL_ERROR


def test_messages_at_the_limits_are_served(serve: Any, wire: Any) -> None:
    server = serve(**LIMITS)
    served = [
        strings(3, 5_000),
        strings(100, 1),
        b"\x0c\x00\x09" * 3 + b"\0" * 3,
    ]
    for body in served:
        message = wire.header(b"ping") + body + b"\0"
        for data in (message, wire.frame(message)):
            with server.connect() as sock:
                assert wire.header(b"ping", 2) in wire.exchange(sock, data)


def test_a_refused_client_does_not_hold_up_a_stop(serve: Any, wire: Any) -> None:
    """It is left the time to read why, but not more than the server has."""
    server = serve(**LIMITS, drain_timeout_s=3600)
    with server.connect() as sock:
        sock.sendall(wire.header(b"ping") + strings(1, 6_000))
        assert sock.recv(1)
        server.stop()


def test_http_gets_an_answer_that_it_understands_and_an_end(
    null_server: Any, wire: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Before it has sent its headers."""
    with null_server.connect() as sock:
        sock.sendall(b"GET ")
        assert wire.read_all(sock).startswith(b"HTTP/1.1 400 Bad Request\r\n")
    null_server.stop()
    (record,) = [r for r in caplog.records if r.name == "service.wire.connection"]
    assert record.levelno == logging.WARNING
    for part in ("an HTTP request", "Thrift's strict binary protocol", "docs/clients.md"):
        assert part in record.getMessage()
