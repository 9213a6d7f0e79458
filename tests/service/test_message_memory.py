"""What the messages of all connections may take together."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from idl import inference
from service.handler import ConfigurationError
from service.message_memory import MemoryFullError, MessageMemory
from service.server_settings import ServerSettings

LARGE_BYTES = 90_000


def large(start: bytes) -> Any:
    return inference.InferenceParams("u", start.ljust(LARGE_BYTES))


@pytest.mark.parametrize("framed", [True, False], ids=["framed", "unframed"])
def test_a_message_without_room_is_refused_and_the_others_are_answered(
    serve: Any, scripted: Any, framed: bool
) -> None:
    server = serve(scripted, max_frame_bytes=100_000, max_buffered_bytes=120_000)
    with ThreadPoolExecutor(1) as pool:
        first = server.client(framed=framed)
        held = pool.submit(first.infer_batch, large(b"wait"))
        assert scripted.entered.acquire(timeout=30)
        with pytest.raises(inference.Overloaded, match="--max-buffered-bytes allows 120000") as e:
            server.client(framed=framed).infer_batch(large(b"x"))
        assert e.value.retry_after_ms > 0
        small = inference.InferenceParams("u", b"best=2")
        assert server.client(framed=framed).infer_batch(small).label == "class_2"
        scripted.release.set()
        assert held.result().label == "class_0"
    # The server reads this call only after it has given the memory of the one before back.
    first.ping()
    assert server.client(framed=framed).infer_batch(large(b"x")).label == "class_0"


def test_what_a_broken_connection_had_is_given_back(serve: Any, scripted: Any) -> None:
    """As often as the limit would hold messages, and more."""
    server = serve(scripted, max_frame_bytes=100_000, max_buffered_bytes=120_000)
    for _ in range(4):
        with server.connect() as sock:
            sock.sendall((LARGE_BYTES).to_bytes(4, "big") + b"\x80\x01\x00\x01" + bytes(40_000))
            sock.shutdown(1)
            assert sock.recv(1) == b""
    assert server.client().infer_batch(large(b"x")).label == "class_0"


def test_nothing_is_taken_of_what_is_refused() -> None:
    memory = MessageMemory(100)
    memory.take(60)
    with pytest.raises(MemoryFullError, match=r"take 60 bytes now, .* allows 100 here; 41 more"):
        memory.take(41)
    memory.take(40)
    memory.give_back(100)
    memory.take(100)


def test_one_message_has_to_fit() -> None:
    with pytest.raises(ConfigurationError, match="must hold one message of max_frame_bytes = 9"):
        ServerSettings(max_frame_bytes=9, max_buffered_bytes=8)
