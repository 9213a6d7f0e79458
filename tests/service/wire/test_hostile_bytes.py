"""Whatever arrives on one connection, the next client is served."""

from __future__ import annotations

import contextlib
import struct
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from idl import inference

HEADER_BATCH = b"\x80\x01\x00\x01\x00\x00\x00\x0binfer_batch\x00\x00\x00\x07"
HEADER_IMAGES = b"\x80\x01\x00\x01\x00\x00\x00\x0cinfer_images\x00\x00\x00\x07"
PARAMS = b"\x0b\x00\x01\x00\x00\x00\x02u1\x0b\x00\x02\x00\x00\x00\x03abc\x00"
BATCH = HEADER_BATCH + b"\x0c\x00\x01" + PARAMS + b"\x00"
OPTIONS = b"\x08\x00\x01\x00\x00\x00\x02\x08\x00\x02\x00\x00\x03\xe8\x02\x00\x03\x01\x00"
IMAGES = (
    HEADER_IMAGES + b"\x0f\x00\x01\x0c\x00\x00\x00\x02" + PARAMS * 2 + b"\x0c\x00\x02" + OPTIONS
) + b"\x00"

MESSAGES = [
    message for call in (BATCH, IMAGES) for message in (call, struct.pack(">i", len(call)) + call)
]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A good message with some bytes changed, removed, repeated or added."""
    data = bytearray(draw(st.sampled_from(MESSAGES)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        match draw(st.sampled_from(["change", "remove", "insert", "repeat", "cut"])):
            case "change":
                data[at : at + 1] = bytes([draw(st.integers(0, 255))])
            case "remove":
                del data[at : at + draw(st.integers(1, 8))]
            case "insert":
                data[at:at] = draw(st.binary(min_size=1, max_size=8))
            case "repeat":
                data[at:at] = data[at : at + 8]
            case _:
                del data[at:]
    return bytes(data)


@pytest.fixture
def limited_server(serve: Any) -> Any:
    return serve(max_frame_bytes=10_000, message_timeout_s=5)


@settings(
    max_examples=250,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(mutated())
def test_mutated_messages_leave_the_server_serving(
    limited_server: Any, wire: Any, data: bytes
) -> None:
    """One server takes them all, and answers a good request after each."""
    # Closing with unread bytes may reset the connection.
    with limited_server.connect() as sock, contextlib.suppress(ConnectionResetError):
        wire.exchange(sock, data)
    client = limited_server.client()
    assert client.infer_batch(inference.InferenceParams("u", b"x")).label == "tench"
    client.close()
