"""Messages of all shapes arrive whole, however they are cut up, and whatever of them is large."""

from __future__ import annotations

import itertools
import random
import socket
import threading
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idl import inference
from service.wire.buffer_budget import POOLED_BUFFER_BYTES, BufferBudget
from service.wire.framing import MessageReader
from service.wire.large_strings import MARK_BYTES, mark, restore
from service.wire.message_buffer import BUFFER_BYTES
from service.wire.method_table import method_table
from service.wire.processor import Processor
from service.wire.scanner import MessageLimits
from service.wire.transport import PlainTransport, Timeouts
from tests.service.conftest import Wire

LIMIT_BYTES = 64_000_000
SIZES = (
    0,
    1,
    100,
    4095,
    4096,
    BUFFER_BYTES,
    60_000,
    100_000,
    POOLED_BUFFER_BYTES,
    300_000,
    1_200_000,
)


class Recorder:
    """Takes the arguments of calls as they arrive."""

    def __init__(self) -> None:
        self.calls: list[list[tuple[Any, bytes]]] = []

    def ping(self) -> None:
        self.calls.append([])

    def infer_batch(self, params: Any) -> Any:
        self.calls.append([(params.uuid, params.data)])

    def infer_images(self, requests: list[Any], options: Any = None) -> Any:
        del options
        self.calls.append([(params.uuid, params.data) for params in requests])
        return []

    def server_info(self) -> Any: ...

    def stats(self) -> Any: ...

    def health(self) -> Any: ...


def infer_images(images: list[tuple[bytes, bytes]]) -> bytes:
    params = [Wire.string(1, uuid) + Wire.string(2, data) + b"\0" for uuid, data in images]
    head = b"\x0f\x00\x01\x0c" + len(images).to_bytes(4, "big")
    return Wire.header(b"infer_images") + head + b"".join(params) + b"\0"


def received(stream: bytes, pieces: list[int]) -> tuple[Recorder, BufferBudget]:
    """What a server makes of a stream that comes in pieces."""
    recorder, memory = Recorder(), BufferBudget(LIMIT_BYTES)
    processor = Processor(method_table(inference.InferenceService, recorder))
    ours, theirs = socket.socketpair()
    with ours, theirs:

        def send() -> None:
            start = 0
            for piece in itertools.chain(pieces, [len(stream)]):
                theirs.sendall(stream[start : start + piece])
                start += piece
            theirs.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        reader = MessageReader(PlainTransport(ours, Timeouts()), MessageLimits(), memory)
        while (message := reader.read()) is not None:
            processor.process(message)
            del message
        reader.release()
        sender.join()
    return recorder, memory


@settings(max_examples=60)
@given(
    calls=st.lists(
        st.tuples(
            st.booleans(),
            st.lists(st.tuples(st.sampled_from(SIZES), st.sampled_from(SIZES)), max_size=4),
        ),
        min_size=1,
        max_size=4,
    ),
    pieces=st.lists(st.sampled_from([1, 3, 17, 1000, 16_384, 100_000]), max_size=8),
)
def test_calls_arrive_as_they_were_sent(
    calls: list[tuple[bool, list[tuple[int, int]]]], pieces: list[int]
) -> None:
    """Framed and unframed, several at a time; uuids may be as large as images."""
    numbers = random.Random(7)  # noqa: S311 (the same for every run)
    stream, sent = b"", []
    for framed, sizes in calls:
        images = [
            (numbers.randbytes(uuid // 2).hex().encode(), numbers.randbytes(data))
            for uuid, data in sizes
        ]
        message = infer_images(images)
        stream += Wire.frame(message) if framed else message
        sent.append([(uuid.decode(), data) for uuid, data in images])
    recorder, memory = received(stream, pieces)
    assert recorder.calls == sent
    memory.take(LIMIT_BYTES)


def test_a_buffer_that_has_grown_goes_back() -> None:
    """Also that of a connection which keeps one between its messages."""
    many_small = [(b"x" * 4000, b"y" * 4000)] * 200
    usual, small = [(b"u", bytes(100_000))], [(b"u", b"x")]
    stream = b"".join(
        Wire.frame(infer_images(images))
        for images in (usual, usual, many_small, usual, small, many_small, small)
    )
    recorder, memory = received(stream, [])
    assert [len(call) for call in recorder.calls] == [1, 1, 200, 1, 1, 200, 1]
    memory.take(LIMIT_BYTES)
    kept = 0
    while memory.keep_buffer():
        kept += 1
    assert kept == LIMIT_BYTES // 32 // POOLED_BUFFER_BYTES


def test_what_looks_like_a_mark_is_none() -> None:
    """Nor does a client get at another one's strings by it."""
    known = mark(0)
    foreign = bytes([known[0] ^ 1]) + known[1:]
    images = [(b"u", bytes(300_000)), (foreign, foreign), (b"u", mark(7)[:-1])]
    recorder, _ = received(infer_images(images), [])
    assert recorder.calls == [[(uuid.decode(), data) for uuid, data in images]]


def test_large_text_that_is_none_stays_bytes() -> None:
    text = b"\xff" * 300_000
    recorder, _ = received(infer_images([(text, b"x")]), [])
    assert recorder.calls == [[(text, b"x")]]


@pytest.mark.parametrize("name", [b"ping", b"unknown"])
def test_large_fields_that_no_method_has_are_skipped(name: bytes) -> None:
    message = Wire.header(name) + Wire.string(9, bytes(400_000)) + b"\0"
    recorder, memory = received(message + Wire.frame(message), [])
    assert recorder.calls == ([[], []] if name == b"ping" else [])
    memory.take(LIMIT_BYTES)


def test_marks_in_maps_are_restored() -> None:
    assert len(mark(3)) == MARK_BYTES
    value = {mark(0).decode(): [mark(1), 5, None]}
    assert restore(value, [b"key", b"value"]) == {"key": [b"value", 5, None]}


def test_a_large_string_is_never_copied() -> None:
    size_bytes = 4_000_000
    stream = Wire.frame(infer_images([(b"u", bytes(size_bytes))]))
    tracemalloc.start()
    try:
        before_bytes = tracemalloc.get_traced_memory()[0]
        ours, theirs = socket.socketpair()
        with ours, theirs:
            sender = threading.Thread(target=theirs.sendall, args=(stream,))
            sender.start()
            transport = PlainTransport(ours, Timeouts())
            reader = MessageReader(transport, MessageLimits(), BufferBudget(LIMIT_BYTES))
            message = reader.read()
            assert message is not None
            methods = method_table(inference.InferenceService, Recorder())
            assert b"infer_images" in Processor(methods).process(message)
            sender.join()
        peak_bytes = tracemalloc.get_traced_memory()[1] - before_bytes
    finally:
        tracemalloc.stop()
    assert peak_bytes < size_bytes + 500_000
