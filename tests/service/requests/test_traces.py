"""Traces of requests, received by a collector that is a real HTTP server."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from idl import inference
from service.client import Client
from service.errors import ConfigurationError
from service.options.server_settings import ServerSettings
from service.requests.telling import telling

Serve = Callable[..., Any]
TRACE_ID, PARENT_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


class Collector(HTTPServer):
    """Takes OTLP over HTTP.

    Attributes:
        received: what has come, resource by resource.
    """

    def __init__(self) -> None:
        self.received: list[Any] = []
        super().__init__(("127.0.0.1", 0), _Answer)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1/traces"

    def spans(self) -> list[Span]:
        return [
            span
            for resource in self.received
            for scope in resource.scope_spans
            for span in scope.spans
        ]


class _Answer(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert self.path == "/v1/traces"
        self.server.received += ExportTraceServiceRequest.FromString(body).resource_spans
        self.send_response(200)
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        pass


@contextmanager
def running(collector: Collector) -> Iterator[None]:
    thread = threading.Thread(target=collector.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield
    finally:
        collector.shutdown()
        thread.join()
        collector.server_close()


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
    collector = Collector()
    with running(collector):
        yield collector


def value(attributes: Any, name: str) -> Any:
    (found,) = (one.value for one in attributes if one.key == name)
    return getattr(found, found.WhichOneof("value"))


def test_a_request_is_a_span_with_its_stages(
    serve: Serve, scripted: Any, collector: Collector
) -> None:
    server = serve(scripted, trace_endpoint=collector.url)
    with Client("127.0.0.1", server.port) as caller:
        caller.classify_batch([b"x", b"invalid"], traceparent=f"00-{TRACE_ID}-{PARENT_ID}-01")
    with closing(server.client()) as client, pytest.raises(inference.InternalError):
        client.infer_batch(inference.InferenceParams("u", b"broken"))
    server.stop()
    # Each request's in their order; a request is told of by its own thread, which may be the later.
    spans = sorted(collector.spans(), key=lambda span: span.trace_id.hex() != TRACE_ID)
    assert [span.name for span in spans] == [
        "decode",
        "infer",
        "InferenceService/infer_images",
        "InferenceService/infer_batch",
    ]
    decode, infer, images, failed = spans
    assert (images.kind, images.status.code) == (Span.SPAN_KIND_SERVER, Status.STATUS_CODE_UNSET)
    assert value(images.attributes, "rpc.method") == "infer_images"
    assert value(images.attributes, "thriftpipe.outcome") == "ok"
    assert value(images.attributes, "thriftpipe.images") == 2
    assert value(images.attributes, "network.peer.address") == "127.0.0.1"
    # The client's trace goes on.
    assert (images.trace_id.hex(), images.parent_span_id.hex()) == (TRACE_ID, PARENT_ID)
    assert decode.parent_span_id == infer.parent_span_id == images.span_id
    assert decode.trace_id == images.trace_id != failed.trace_id
    assert decode.start_time_unix_nano == images.start_time_unix_nano
    assert decode.end_time_unix_nano - decode.start_time_unix_nano == 500_000
    assert infer.start_time_unix_nano == decode.end_time_unix_nano
    assert infer.end_time_unix_nano - infer.start_time_unix_nano == 2_500_000
    assert failed.status.code == Status.STATUS_CODE_ERROR
    assert failed.parent_span_id == b""
    resource = collector.received[0].resource.attributes
    assert value(resource, "service.name") == "thriftpipe"
    assert value(resource, "thriftpipe.worker") == 0


def test_the_sdk_takes_its_own_variables(
    serve: Serve, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "mine")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
    server = serve(trace_endpoint=collector.url)
    with closing(server.client()) as client:
        client.ping()
        client.infer_images(
            [inference.InferenceParams("u", b"x")],
            inference.InferOptions(traceparent=f"00-{TRACE_ID}-{PARENT_ID}-01"),
        )
    server.stop()
    assert [span.name for span in collector.spans()] == ["InferenceService/infer_images"]
    assert value(collector.received[0].resource.attributes, "service.name") == "mine"


@pytest.mark.parametrize("given", ["", "nonsense", f"00-{'0' * 32}-{PARENT_ID}-01", "ü" * 200])
def test_what_is_no_trace_context_begins_a_trace(
    serve: Serve, collector: Collector, given: str
) -> None:
    server = serve(trace_endpoint=collector.url)
    with closing(server.client()) as client:
        options = inference.InferOptions(traceparent=given)
        client.infer_images([inference.InferenceParams("u", b"x")], options)
    server.stop()
    (span,) = collector.spans()
    assert span.parent_span_id == b""


def test_a_collector_that_is_not_there_costs_no_request(serve: Serve) -> None:
    server = serve(trace_endpoint="http://127.0.0.1:1/v1/traces")
    with closing(server.client()) as client:
        client.ping()
        client.ping()
    server.stop()


def test_without_its_packages_it_is_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "service.requests.traces", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    settings = ServerSettings(trace_endpoint="http://127.0.0.1:4318/v1/traces")
    with pytest.raises(ConfigurationError, match=r"pip install 'thriftpipe\[otel\]'"):
        telling(settings, 0)


def test_what_the_sdk_does_not_accept_is_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "1")
    settings = ServerSettings(trace_endpoint="http://127.0.0.1:4318/v1/traces")
    with pytest.raises(ConfigurationError, match=r"^--trace-endpoint: .* OTEL_\*: max_export_b"):
        telling(settings, 0)
