"""What the messages of all connections may take together."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from typing import Any

import pytest

from idl import inference
from service.errors import ConfigurationError
from service.options.server_settings import ServerSettings
from service.wire.buffer_budget import BufferBudget, MemoryFullError

LARGE_BYTES = 90_000
LEAST_AGE = "service.wire.buffer_budget._LEAST_AGE_S"


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


def half_a_message(server: Any, wire: Any, framed: bool) -> Any:
    """A connection that has sent it, and has taken all the room of a server by now."""
    message = wire.infer_batch(bytes(LARGE_BYTES))
    (sock,) = parts_of_messages(server, wire.frame(message) if framed else message, [60_000])
    return sock


def parts_of_messages(server: Any, message: bytes, sizes_bytes: Sequence[int]) -> list[Any]:
    """A connection that has sent the start of a message, for each size."""
    socks = [server.connect() for _ in sizes_bytes]
    arrived_bytes = arrived(server)
    for sock, size_bytes in zip(socks, sizes_bytes, strict=True):
        sock.sendall(message[:size_bytes])
    wait_for_bytes(server, arrived_bytes + sum(sizes_bytes))
    refuse(server)
    return socks


def arrived(server: Any) -> int:
    """How much of all messages has come that have not come as a whole."""
    return sum(message.arrived_bytes for message in list(server.server._memory.arriving))


def wait_for_bytes(server: Any, wanted_bytes: int) -> None:
    """Until the server has read so much of them: what it reads later is what came of late."""
    headers_bytes = 4 * 16
    while arrived(server) < wanted_bytes - headers_bytes:
        server.client().ping()


def refuse(server: Any) -> None:
    """Ask until there is no room."""
    with suppress(inference.Overloaded):
        while True:
            server.client().infer_batch(large(b"x"))


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LEAST_AGE, 3600.0)


@pytest.mark.parametrize("framed", [True, False], ids=["framed", "unframed"])
def test_half_messages_leave_room_for_probes_and_a_line_in_the_log(
    serve: Any, wire: Any, patient: None, framed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    del patient
    server = serve(max_frame_bytes=100_000, max_buffered_bytes=120_000)
    with half_a_message(server, wire, framed):
        for _ in range(20):
            server.client().ping()
            assert server.client().health().ready
            with pytest.raises(inference.Overloaded, match="--max-buffered-bytes"):
                server.client().infer_batch(large(b"x"))
    (record,) = [one for one in caplog.records if "--max-buffered-bytes" in one.getMessage()]
    assert record.levelname == "WARNING"
    assert record.getMessage().startswith("closed 127.0.0.1:")


@pytest.mark.parametrize("framed", [True, False], ids=["framed", "unframed"])
def test_half_a_message_of_which_no_more_comes_makes_room(
    serve: Any, wire: Any, patient: None, framed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long it would be waited for; its client is told."""
    del patient
    server = serve(max_frame_bytes=100_000, max_buffered_bytes=120_000, message_timeout_s=3600.0)
    with half_a_message(server, wire, framed) as sock:
        monkeypatch.setattr(LEAST_AGE, 0.0)
        with pytest.raises(inference.Overloaded):
            server.client().infer_batch(large(b"x"))
        told = wire.read_all(sock)
        assert b"bytes of a message came in" in told
        assert b"kB/s of late, while others found no room in --max-buffered-bytes" in told
        # Its room comes back a moment after its answer.
        label = None
        while label is None:
            with suppress(inference.Overloaded):
                label = server.client().infer_batch(large(b"x")).label
        assert label == "tench"


def test_the_message_that_comes_most_slowly_makes_room(
    serve: Any, wire: Any, patient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though a byte of it has come just now."""
    del patient
    server = serve(max_frame_bytes=100_000, max_buffered_bytes=200_000, message_timeout_s=3600.0)
    message = wire.frame(wire.infer_batch(bytes(LARGE_BYTES)))
    # However much sooner or later than the other it began.
    fast, slow = parts_of_messages(server, message, [85_000, 500])
    with fast, slow:
        for _ in range(20):
            server.client().ping()
        slow.sendall(b"x")
        monkeypatch.setattr(LEAST_AGE, 0.0)
        with pytest.raises(inference.Overloaded):
            server.client().infer_batch(large(b"x"))
        assert b"of a message came in" in wire.read_all(slow)
        fast.sendall(message[85_000:])
        assert b"tench" in fast.recv(4096)


def test_a_message_that_came_fast_and_stalls_makes_room_before_a_steady_one(
    serve: Any, wire: Any, patient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    del patient
    server = serve(max_frame_bytes=100_000, max_buffered_bytes=290_000, message_timeout_s=3600.0)
    message = wire.frame(wire.infer_batch(bytes(LARGE_BYTES)))
    stalled, steady, slowest = parts_of_messages(server, message, [85_000, 30_000, 500])
    with stalled, steady, slowest:
        monkeypatch.setattr(LEAST_AGE, 0.0)
        refuse(server)
        assert b"of a message came in" in wire.read_all(slowest)
        memory = server.server._memory
        while memory._taken_bytes > 2 * LARGE_BYTES:
            server.client().ping()
        with server.connect() as other:
            other.sendall(message[:80_000])
            wait_for_bytes(server, 85_000 + 30_000 + 80_000)
            steady.sendall(message[30_000:40_000])
            wait_for_bytes(server, 85_000 + 40_000 + 80_000)
            refuse(server)
        assert b"of a message came in" in wire.read_all(stalled)
        steady.sendall(message[40_000:])
        assert b"tench" in steady.recv(4096)


def test_as_many_make_room_as_one_message_needs(
    serve: Any, wire: Any, patient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(max_frame_bytes=300_000, max_buffered_bytes=400_000, message_timeout_s=3600.0)
    del patient
    message = wire.frame(wire.infer_batch(bytes(LARGE_BYTES)))
    socks = parts_of_messages(server, message, [60_000] * 5)
    larger = inference.InferenceParams("u", bytes(250_000))
    monkeypatch.setattr(LEAST_AGE, 0.0)
    with pytest.raises(inference.Overloaded):
        server.client().infer_batch(larger)
    monkeypatch.setattr(LEAST_AGE, 3600.0)
    label = None
    for _ in range(200):
        with suppress(inference.Overloaded):
            label = server.client().infer_batch(larger).label
            break
    assert label == "tench"
    for sock in socks:
        sock.close()


def test_connections_without_a_message_keep_their_place(
    serve: Any, wire: Any, patient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long they have had nothing to do."""
    del patient
    server = serve(max_frame_bytes=100_000, max_buffered_bytes=120_000, message_timeout_s=3600.0)
    with closing(server.client()) as idle:
        idle.infer_batch(large(b"x"))
        # By now the room of the call before has come back.
        idle.ping()
        with half_a_message(server, wire, framed=True):
            monkeypatch.setattr(LEAST_AGE, 0.0)
            with pytest.raises(inference.Overloaded):
                server.client().infer_batch(large(b"x"))
            idle.ping()


def test_what_a_broken_connection_had_is_given_back(serve: Any, scripted: Any, wire: Any) -> None:
    """As often as the limit would hold messages, and more."""
    message = wire.frame(wire.infer_batch(bytes(LARGE_BYTES)))
    server = serve(scripted, max_frame_bytes=100_000, max_buffered_bytes=120_000)
    for _ in range(4):
        with server.connect() as sock:
            sock.sendall(message[:40_000])
            sock.shutdown(1)
            assert sock.recv(1) == b""
    assert server.client().infer_batch(large(b"x")).label == "class_0"


def test_a_reply_has_to_fit_too(serve: Any, scripted: Any) -> None:
    """Which is found out before any work."""
    server = serve(scripted, max_frame_bytes=100_000, max_buffered_bytes=400_000)
    few, many = ([inference.InferenceParams("u", b"x")] * count for count in (125, 200))
    options = inference.InferOptions(top_k=5)
    with closing(server.client()) as client:
        calls = len(scripted.deadlines)
        with pytest.raises(inference.InvalidRequest, match="its reply, --max-buffered-bytes"):
            client.infer_images(many, options)
        assert len(scripted.deadlines) == calls
        assert len(client.infer_images(few, options)) == 125
        with ThreadPoolExecutor(1) as pool, closing(server.client()) as other:
            held = pool.submit(client.infer_batch, large(b"wait"))
            assert scripted.entered.acquire(timeout=30)
            with pytest.raises(inference.Overloaded, match="--max-buffered-bytes"):
                other.infer_images(few, options)
            scripted.release.set()
            held.result()
            client.ping()
            assert len(other.infer_images(few[:40], options)) == 40


def test_nothing_is_taken_of_what_is_refused() -> None:
    memory = BufferBudget(100)
    memory.take(60)
    with pytest.raises(MemoryFullError, match=r"take 60 bytes now, .* allows 100 here; 41 more"):
        memory.take(41)
    memory.take(40)
    memory.give_back(100)
    memory.take(100)


def test_one_message_has_to_fit() -> None:
    with pytest.raises(ConfigurationError, match="must hold one message of max_frame_bytes = 9"):
        ServerSettings(max_frame_bytes=9, max_buffered_bytes=8)
