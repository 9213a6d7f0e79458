"""OpenTelemetry: a span for each request, sent by OTLP over HTTP.

Only imported where that is asked for; it needs the packages of the extra 'otel'. What else its SDK
lets a user choose, such as a sampler, comes from the variables that begin with OTEL_.
"""

from __future__ import annotations

import os
import time
from typing import Any

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from service.call_counts import INTERNAL_ERROR
from service.requests.request import Request

_NAME_VARIABLE = "OTEL_SERVICE_NAME"
_NS_PER_MS = 1_000_000
_propagator = TraceContextTextMapPropagator()


class Traces:
    """Makes a span of each request, and of each stage of its slowest image a child.

    Stages follow each other from the beginning of the request on: their lengths are measured, the
    moments at which they begin are not.

    Args:
        exporter: where spans go, in batches and from a thread of its own.
        attributes: what is the same for all of them.
    """

    def __init__(self, exporter: SpanExporter, attributes: dict[str, str | int]) -> None:
        name = os.environ.get(_NAME_VARIABLE, "thriftpipe")
        resource = Resource.create({SERVICE_NAME: name, **attributes})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("thriftpipe")

    @classmethod
    def to_endpoint(cls, url: str, attributes: dict[str, str | int]) -> Traces:
        """Spans for a collector.

        Args:
            url: where it takes OTLP over HTTP, such as http://127.0.0.1:4318/v1/traces.
            attributes: what is the same for all of them.
        """
        return cls(OTLPSpanExporter(endpoint=url), attributes)

    def __call__(self, request: Request) -> None:
        """Make the spans of a request."""
        since_start_s = time.monotonic() - request.began_s
        start_ns = time.time_ns() - round(since_start_s * 1e9)
        parent = {"traceparent": request.traceparent} if request.traceparent else {}
        host, _, port = request.peer.rpartition(":")
        span = self._tracer.start_span(
            f"InferenceService/{request.method}",
            _propagator.extract(parent),
            SpanKind.SERVER,
            {
                "rpc.system": "apache_thrift",
                "rpc.service": "InferenceService",
                "rpc.method": request.method,
                "network.peer.address": host.strip("[]"),
                "network.peer.port": int(port),
                "thriftpipe.outcome": request.outcome,
                "thriftpipe.images": request.images,
                "thriftpipe.failed_images": request.failed_images,
                "thriftpipe.request_bytes": request.request_bytes or 0,
                "thriftpipe.reply_bytes": request.reply_bytes,
            },
            start_time=start_ns,
        )
        if request.outcome == INTERNAL_ERROR:
            span.set_status(Status(StatusCode.ERROR, request.outcome))
        if span.is_recording():
            self._add_stages(span, request, start_ns)
        span.end(start_ns + round(request.took_ms * _NS_PER_MS))

    def _add_stages(self, span: Any, request: Request, start_ns: int) -> None:
        context = set_span_in_context(span)
        for stage, took_ms in request.stages_ms.items():
            child = self._tracer.start_span(stage, context, start_time=start_ns)
            start_ns += round(took_ms * _NS_PER_MS)
            child.end(start_ns)

    def close(self) -> None:
        """Send what is left, as long as the exporter's own time limit allows."""
        self._provider.shutdown()
