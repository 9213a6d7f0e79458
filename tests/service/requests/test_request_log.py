"""Lines of requests in the log of a real server."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from idl import inference
from service.call_counts import CallCounts
from service.logs.formats import Event
from service.logs.queued import REQUESTS

Serve = Callable[..., Any]


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[tuple[str, dict[str, Any]]]]:
    """The events of the log of requests so far: name and fields."""
    caplog.set_level(logging.WARNING)
    # Only the logger of requests lets lines of that level through.
    caplog.handler.setLevel(logging.INFO)

    def found() -> list[tuple[str, dict[str, Any]]]:
        return [
            (record.msg.name, record.msg.known())
            for record in caplog.records
            if record.name == REQUESTS and isinstance(record.msg, Event)
        ]

    return found


def images(*contents: bytes) -> list[Any]:
    return [inference.InferenceParams(f"u{number}", data) for number, data in enumerate(contents)]


def test_each_request_has_a_line(serve: Serve, scripted: Any, lines: Any, wire: Any) -> None:
    server = serve(scripted, access_log=True, max_frame_bytes=1000, max_buffered_bytes=1000)
    with closing(server.client()) as client:
        client.ping()
        client.infer_batch(images(b"x")[0])
        client.infer_images(images(b"x", b"invalid", b"late"))
        with pytest.raises(inference.InvalidRequest):
            client.infer_images(images(b"x"), inference.InferOptions(top_k=0))
        with pytest.raises(inference.InternalError):
            client.infer_batch(images(b"broken")[0])
        with pytest.raises(inference.InvalidRequest):
            client.infer_images(images(b"x" * 2000))
    with server.connect() as sock:
        address = "{}:{}".format(*sock.getsockname())
        message = wire.infer_batch(b"best=3")
        reply = wire.exchange(sock, wire.frame(message))
    server.stop()
    found = lines()
    assert {name for name, _ in found} == {"request"}
    told = [
        (one["method"], one["outcome"], one["images"], one.get("failed_images", 0))
        for _, one in found
    ]
    assert told == [
        ("ping", "ok", 0, 0),
        ("infer_batch", "ok", 1, 0),
        ("infer_images", "ok", 3, 2),
        ("infer_images", "invalid_request", 0, 0),
        ("infer_batch", "internal_error", 1, 1),
        ("infer_images", "invalid_request", 0, 0),
        ("infer_batch", "ok", 1, 0),
    ]
    assert "request_bytes" not in found[-2][1]
    last = found[-1][1]
    assert last["request_bytes"] == len(message) - len(wire.header(b"infer_batch"))
    assert (last["reply_bytes"], last["peer"]) == (len(reply), address)
    assert all(one["latency_ms"] >= 0 for _, one in found)


@pytest.mark.parametrize(("slow_ms", "expected"), [(60_000, []), (1, ["slow request"])])
def test_only_slow_requests_have_a_line_with_their_stages(
    serve: Serve, scripted: Any, lines: Any, slow_ms: int, expected: list[str]
) -> None:
    server = serve(Worked(scripted), slow_ms=slow_ms)
    with closing(server.client()) as client:
        client.infer_images(images(b"invalid", b"x"))
    server.stop()
    found = lines()
    assert [name for name, _ in found] == expected
    for _, one in found:
        assert one["stages_ms"] == {"decode": 0.5, "infer": 2.5}
        assert (one["method"], one["images"], one["failed_images"]) == ("infer_images", 2, 1)
        assert one["latency_ms"] > 1


class Worked:
    """A handler that takes two milliseconds for each call."""

    def __init__(self, handler: Any) -> None:
        self._handler = handler

    def classify(self, *arguments: Any) -> Any:
        end_s = time.monotonic() + 0.002
        while time.monotonic() < end_s:
            pass
        return self._handler.classify(*arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._handler, name)


def test_a_request_whose_client_has_gone_has_a_line(
    serve: Serve, scripted: Any, lines: Any, wire: Any
) -> None:
    server = serve(scripted, access_log=True)
    with server.connect() as sock:
        sock.sendall(wire.frame(wire.infer_batch(b"wait")))
        assert scripted.entered.acquire(timeout=30)
    scripted.release.set()
    server.stop()
    ((_, one),) = lines()
    assert (one["method"], one["images"]) == ("infer_batch", 1)


def test_nothing_is_told_unless_it_is_asked_for(serve: Serve, lines: Any) -> None:
    server = serve()
    with closing(server.client()) as client:
        client.ping()
    server.stop()
    assert lines() == []
    assert type(server.server._telling.counts) is CallCounts
    assert server.server._telling.replied is None
