"""`stats` of a server in this process: every call and image is counted under what became of it."""

from __future__ import annotations

import asyncio
import re
import threading
from pathlib import Path
from typing import Any

import pytest

from idl import inference
from interfaces.stats import BOUNDS_MS, Stats
from interfaces.structs import from_struct
from service.call_counts import CallCounts
from service.client import AsyncClient

Params = inference.InferenceParams


def stats_of(client: Any) -> Stats:
    return from_struct(Stats, client.stats())


def counted(counts: dict[str, int]) -> dict[str, int]:
    return {name: count for name, count in counts.items() if count}


def test_each_outcome_is_counted(scripted_server: Any) -> None:
    client = scripted_server.client()
    client.ping()
    outcomes = {
        b"best=1": None,
        b"invalid": inference.InvalidImage,
        b"late": inference.DeadlineExceeded,
        b"broken": inference.InternalError,
        b"raise": inference.InternalError,
        b"nan": inference.InternalError,
    }
    for image, error in outcomes.items():
        if error is None:
            client.infer_batch(Params("u", image))
            continue
        with pytest.raises(error):
            client.infer_batch(Params("u", image))
    client.infer_images([Params("u", image) for image in (b"x", b"invalid", b"late", b"nan")])
    with pytest.raises(inference.InvalidRequest):
        client.infer_images([Params("u", b"x")], inference.InferOptions(top_k=0))
    stats = stats_of(client)
    assert {method: counted(of) for method, of in stats.calls.items()} == {
        "ping": {"ok": 1},
        "infer_batch": {
            "ok": 1,
            "invalid_image": 1,
            "deadline_exceeded": 1,
            "internal_error": 3,
        },
        "infer_images": {"ok": 1, "invalid_request": 1},
    }
    assert counted(stats.images) == {
        "ok": 2,
        "invalid_image": 2,
        "deadline_exceeded": 2,
        "internal_error": 3,
    }
    # The call that raised gave no outcome of its image, and refusals are not timed.
    assert {method: times.count for method, times in stats.latencies.items()} == {
        "ping": 1,
        "infer_batch": 6,
        "infer_images": 1,
    }
    assert {stage: times.count for stage, times in stats.stages.items()} == {
        "decode": 2,
        "infer": 2,
    }
    assert stats.stages["infer"].sum_ms == 5.0
    assert stats.stages["infer"].counts[BOUNDS_MS.index(3.0)] == 2
    assert stats_of(client).calls["stats"] == {"ok": 1}
    (worker,) = stats.workers
    assert (worker.worker, worker.why_not_ready, worker.connections) == (0, "", 1)
    assert worker.calls == 9
    assert (stats.connections, stats.connections_opened, stats.max_connections) == (1, 1, 1024)
    assert 0 < stats.uptime_s < stats_of(client).uptime_s
    client.close()


def test_what_is_in_flight_and_what_is_refused(serve: Any, scripted: Any) -> None:
    server = serve(scripted, max_queue=1)
    clients = [server.client() for _ in range(3)]
    waiting = [
        threading.Thread(target=client.infer_batch, args=[Params("u", b"wait")])
        for client in clients[:2]
    ]
    for thread in waiting:
        thread.start()
        assert scripted.entered.acquire(timeout=30)
    with pytest.raises(inference.Overloaded):
        clients[2].infer_batch(Params("u", b"x"))
    stats = stats_of(clients[2])
    # The handler says that it works on one image at once.
    assert (stats.calls_in_flight, stats.images_in_flight, stats.images_waiting) == (2, 2, 1)
    assert counted(stats.refusals) == {"queue_full": 1}
    assert counted(stats.calls["infer_batch"]) == {"overloaded": 1}
    assert stats.latencies == {}
    scripted.release.set()
    for thread in waiting:
        thread.join()
    stats = stats_of(clients[2])
    assert (stats.calls_in_flight, stats.images_in_flight, stats.images_waiting) == (0, 0, 0)
    assert counted(stats.calls["infer_batch"]) == {"overloaded": 1, "ok": 2}
    for client in clients:
        client.close()


def test_what_is_no_call_of_the_service_is_counted_too(serve: Any, wire: Any) -> None:
    server = serve(max_connections=1, max_frame_bytes=1000, max_buffered_bytes=1000)
    client = server.client()
    unknown = wire.frame(wire.header(b"nonsense") + b"\0")
    empty = wire.frame(wire.header(b"infer_batch") + b"\0")
    with server.connect() as reserve:
        assert b"1 connections are open" in wire.exchange(reserve, wire.infer_batch())
    client.close()
    for message in (unknown, empty):
        with server.connect() as sock:
            wire.exchange(sock, message)
    with server.connect() as sock:
        # Refused before its name has come.
        assert wire.exchange(sock, (2000).to_bytes(4, "big") + wire.header(b"infer_images"))
    client = server.client()
    stats = stats_of(client)
    assert counted(stats.refusals) == {"connections": 1}
    assert stats.calls["unknown"] == {"protocol_error": 1, "invalid_request": 1}
    assert counted(stats.calls["infer_batch"]) == {"overloaded": 1, "protocol_error": 1}
    assert stats.connections_opened == 6
    client.close()


def test_a_sum_that_cannot_be_had_is_an_internal_error(
    null_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hangs() -> Stats:
        raise TimeoutError("the supervisor has not answered within 5 s")

    monkeypatch.setattr(null_server.server._service, "_whole_stats", hangs)
    client = null_server.client()
    with pytest.raises(inference.InternalError, match="the supervisor has not answered") as error:
        client.stats()
    assert error.value.error_id
    client.ping()
    client.close()


def test_the_pages_example_runs(null_server: Any, capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "operations-metrics.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    client = null_server.client()
    client.infer_images([Params("u", b"x")])
    client.close()
    exec(example.replace("Client()", f"Client(port={null_server.port})"), {})  # noqa: S102
    assert capsys.readouterr().out.startswith("1 {'ok': 1, ")


def test_a_client_for_event_loops_has_them_too(null_server: Any) -> None:
    async def ask() -> Stats:
        async with AsyncClient(port=null_server.port) as client:
            await client.ping()
            return await client.stats()

    assert asyncio.run(ask()).calls["ping"] == {"ok": 1}


def test_threads_lose_no_count() -> None:
    counts = CallCounts()

    def count() -> None:
        for _ in range(1000):
            counts.call_done("ping", "ok", 0.001)
            counts.image_done("ok", {"decode": 0.25, "infer": 1e9})
            counts.refused("memory")

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stats = counts.read()
    assert stats.calls["ping"] == {"ok": 4000}
    assert (stats.images["ok"], stats.refusals["memory"]) == (4000, 4000)
    # A bound belongs to the times that it bounds, as `le` says.
    assert stats.stages["decode"].counts[0] == 4000
    assert stats.stages["infer"].counts[-1] == 4000
