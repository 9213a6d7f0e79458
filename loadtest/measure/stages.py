"""Where the time of one request goes: a window of its own, never one that is timed."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import cycle

from idl import inference
from loadtest.errors import LoadTestError
from loadtest.load.clients import Clients
from loadtest.load.images import LoadImage
from loadtest.load.rpc import connection
from loadtest.records.run import StagedRequest
from loadtest.settings import LoadSettings


def measure_stages(
    load: LoadSettings, images: Sequence[LoadImage], expected_labels: Mapping[str, str]
) -> list[StagedRequest]:
    """Let one of the clients ask for stage times while the others keep the server as busy as ever.

    Args:
        load: the load; one image a request, whatever it says.
        images: what to send.
        expected_labels: image name to the label that it must get.

    Raises:
        LoadTestError: the server fails, or fails an image.
    """
    assert load.duration_s is not None  # noqa: S101 (a window of stage times is bound by time)
    others = replace(load, request_client=load.request_client - 1, request_batch=1)
    with ExitStack() as stack:
        clients = None
        if others.request_client:
            clients = stack.enter_context(Clients(others, images, expected_labels))
            clients.start()
        start_s = time.perf_counter() + load.warmup_s
        requests = _ask(load, images, start_s, start_s + load.duration_s)
        if clients is not None:
            clients.stop(start_s, time.perf_counter())
    return requests


def _ask(
    load: LoadSettings, images: Sequence[LoadImage], start_s: float, end_s: float
) -> list[StagedRequest]:
    """Ask until `end_s`; what is sent before `start_s` is warm-up."""
    options = inference.InferOptions(with_stage_times=True)
    asked = [
        inference.InferenceParams(uuid=image.name, data=image.path.read_bytes()) for image in images
    ]
    requests = []
    with connection(load.host, load.port, load.request_timeout_s) as client:
        for request in cycle(asked):
            sent_s = time.perf_counter()
            if sent_s >= end_s:
                break
            result = client.infer_images([request], options)[0]
            latency_ms = (time.perf_counter() - sent_s) * 1000
            if result.error is not None:
                raise LoadTestError(f"{request.uuid}: the server says: {result.error.message}")
            if sent_s >= start_s:
                requests.append(StagedRequest(latency_ms, dict(result.stage_times_ms or {})))
    return requests
