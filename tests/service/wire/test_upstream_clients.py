"""Upstream's clients talk to this server unchanged: the bytes are theirs."""

from __future__ import annotations

import io
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import thriftpy2
from thriftpy2.protocol import TCyBinaryProtocol
from thriftpy2.rpc import make_client
from thriftpy2.transport import (
    TCyBufferedTransportFactory,
    TCyFramedTransportFactory,
    TCyMemoryBuffer,
)

from idl import inference
from service.accepting.listener import PortListener
from service.handlers.null import NullHandler
from service.options.server_settings import ServerSettings
from service.server import Server

UPSTREAM_IDL = """
struct InferenceParams {
    1: required string uuid,
    2: required binary data
}
struct InferenceResult {
    1: required string label,
    2: required double score
}
service InferenceService {
    void ping(),
    InferenceResult infer_batch(1: InferenceParams params)
}
"""

REQUEST = bytes.fromhex(
    "80010001 0000000b 696e6665725f6261746368 00000007"  # call, "infer_batch", sequence id 7
    "0c0001"  # argument 1: a struct
    "0b0001 00000002 7531"  # uuid: "u1"
    "0b0002 00000002 ffd8"  # data: two bytes
    "00 00"
)
REPLY = bytes.fromhex(
    "80010002 0000000b 696e6665725f6261746368 00000007"  # reply
    "0c0000"  # success: a struct
    "0b0001 00000005 74656e6368"  # label: "tench"
    "040002 3ff0000000000000"  # score: 1.0
    "00 00"
)


@pytest.fixture(scope="module")
def upstream() -> Any:
    return thriftpy2.load_fp(io.StringIO(UPSTREAM_IDL), "upstream_thrift")


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    settings = ServerSettings(port=0)
    arrivals = PortListener(settings)
    with Server(settings, "null", NullHandler, arrivals) as server:
        server.startup()
        thread = threading.Thread(target=server.serve)
        thread.start()
        yield arrivals.address[1]
        server.stop()
        thread.join()
        assert server.drain() == 0
        server.shutdown()


def encoded(name: str, message_type: int, struct: Any) -> bytes:
    buffer = TCyMemoryBuffer()
    protocol: Any = TCyBinaryProtocol
    writer = protocol(buffer)
    writer.write_message_begin(name, message_type, 7)
    writer.write_struct(struct)
    return bytes(buffer.getvalue())


@pytest.mark.parametrize("framed", [False, True], ids=["unframed", "framed"])
def test_infer_batch_is_these_bytes_on_the_wire(port: int, framed: bool) -> None:
    prefix = {len(m): len(m).to_bytes(4, "big") if framed else b"" for m in (REQUEST, REPLY)}
    with socket.create_connection(("127.0.0.1", port), timeout=30) as sock:
        sock.sendall(prefix[len(REQUEST)] + REQUEST)
        sock.shutdown(socket.SHUT_WR)
        with sock.makefile("rb") as replies:
            assert replies.read() == prefix[len(REPLY)] + REPLY


def test_those_bytes_are_what_upstreams_idl_says(upstream: Any) -> None:
    service = upstream.InferenceService
    args = service.infer_batch_args()
    args.params = upstream.InferenceParams("u1", b"\xff\xd8")
    assert encoded("infer_batch", 1, args) == REQUEST
    result = service.infer_batch_result(success=upstream.InferenceResult("tench", 1.0))
    assert encoded("infer_batch", 2, result) == REPLY


@pytest.mark.parametrize(
    "factory", [TCyFramedTransportFactory(), TCyBufferedTransportFactory()], ids=["framed", "buf"]
)
def test_a_client_made_from_upstreams_idl_is_served(upstream: Any, port: int, factory: Any) -> None:
    client = make_client(upstream.InferenceService, "127.0.0.1", port, trans_factory=factory)
    assert client.ping() is None
    result = client.infer_batch(upstream.InferenceParams("u1", b"\xff\xd8"))
    assert vars(result) == {"label": "tench", "score": 1.0}
    client.close()


def test_upstreams_client_skips_what_it_does_not_know(upstream: Any) -> None:
    """A result with every field set is still a label and a score to it."""
    full = inference.InferenceResult(
        "tench",
        1.0,
        uuid="u1",
        class_id=0,
        top_k=[inference.ClassScore(0, "tench", 1.0)],
        error=inference.ImageError(inference.ErrorCode.INTERNAL, "m", "id"),
        stage_times_ms={"decode": 1.0},
    )
    buffer = TCyMemoryBuffer(encoded("x", 2, full))
    protocol: Any = TCyBinaryProtocol
    reader = protocol(buffer)
    reader.read_message_begin()
    assert vars(reader.read_struct(upstream.InferenceResult())) == {"label": "tench", "score": 1.0}


def test_upstreams_client_never_takes_an_exception_for_a_result(upstream: Any) -> None:
    """Its IDL declares none: it sees a reply without a result, which its library reports."""
    failed = inference.InferenceService.infer_batch_result(
        invalid_image=inference.InvalidImage("no image", "u1")
    )
    protocol: Any = TCyBinaryProtocol
    reader = protocol(TCyMemoryBuffer(encoded("infer_batch", 2, failed)))
    reader.read_message_begin()
    assert reader.read_struct(upstream.InferenceService.infer_batch_result()).success is None
