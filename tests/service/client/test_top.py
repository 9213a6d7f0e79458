"""`top` beside a real server, and what it makes of two of its stats."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from idl import inference
from interfaces.stats import (
    BOUNDS_MS,
    EngineProcessStats,
    GpuStats,
    Histogram,
    NodeStats,
    Stats,
    WorkerStats,
)
from service.client import ClientError, ConnectionFailedError
from service.client.changes import change
from service.client.client_command import main
from service.client.top import picture, watch

ONCE = ("top", "--once", "--interval-s", "0.01")


def times(count: int, place: int) -> Histogram:
    return Histogram([count * (i == place) for i in range(len(BOUNDS_MS) + 1)], 1.0)


EARLIER = Stats(
    uptime_s=100.0,
    calls={"infer_batch": {"ok": 100}},
    images={"ok": 100},
    latencies={"infer_batch": times(100, 1)},
    nodes={"cnn": NodeStats(items=100, batches_by_size={1: 100}, batches_by_reason={"idle": 100})},
    workers=[WorkerStats(0, 7, "", 3, 0, 100)],
)
LATER = Stats(
    uptime_s=110.0,
    calls={"infer_batch": {"ok": 300, "overloaded": 50, "internal_error": 0}},
    images={"ok": 300},
    refusals={"queue_full": 50, "memory": 0},
    # 100 calls of up to 0.5 ms as before, and 200 of 5 to 7.5 ms.
    latencies={"infer_batch": Histogram([0, 100, 0, 0, 0, 0, 200, *[0] * 20], 1.0)},
    stages={"cnn.forward": times(200, 3)},
    calls_in_flight=1,
    images_in_flight=6,
    images_waiting=2,
    connections=4,
    max_connections=1024,
    nodes={
        "cnn": NodeStats(
            items=300,
            failed_items=20,
            queue_ms=400.0,
            forward_ms=5000.0,
            batches_by_size={1: 100, 4: 50},
            batches_by_reason={"idle": 110, "full": 40},
            rebuilds=3,
            instances=2,
            working_instances=1,
            stuck_instances=1,
        )
    },
    workers=[
        WorkerStats(0, 7, "", 4, 6, 350),
        WorkerStats(1, 9, "node 'cnn' is broken", 0, 0, 5, report_age_s=7.0),
    ],
    worker_restarts=1,
    engine_process=EngineProcessStats(alive=False, pid=12, started_at_s=1.0, restarts=2),
    gpus=[GpuStats(0, "GPU-1", "H200", 0.75, 2**33, 2**34)],
    wanted_workers=2,
)


def test_the_difference_of_two_stats_in_numbers_for_people() -> None:
    done = change(LATER, EARLIER)
    assert done.duration_s == 10.0
    assert done.calls_per_s == {"ok": 20.0, "overloaded": 5.0}
    assert (done.images_per_s, done.refused_per_s) == ({"ok": 20.0}, {"queue_full": 5.0})
    latency = done.latencies["infer_batch"]
    # Of the last 10 s only, in which all calls took 5 to 7.5 ms.
    assert (latency.per_s, latency.p50_ms) == (20.0, 6.25)
    assert latency.p99_ms == pytest.approx(7.475)
    node = done.nodes["cnn"]
    assert (node.items_per_s, node.failed_per_s, node.queue_ms) == (20.0, 2.0, 2.0)
    assert (node.forward_ms, node.batch_rows, node.busy) == (100.0, 4.0, 0.5)
    assert node.reasons == {"idle": 0.2, "full": 0.8}
    assert done.worker_calls_per_s == {0: 25.0, 1: 0.5}


def test_of_a_server_that_was_started_again_all_is_new() -> None:
    assert change(EARLIER, LATER).calls_per_s == {"ok": 1.0}
    # Also where it has been there for longer than the one before had been.
    another = replace(EARLIER, uptime_s=200.0, nodes={"cpu": NodeStats(items=20)})
    assert change(another, LATER).calls_per_s == {"ok": 0.5}
    assert change(another, LATER).nodes.keys() == {"cpu"}


def test_the_picture_has_all_of_it() -> None:
    console = Console(file=io.StringIO(), width=160)
    console.print(picture(LATER, change(LATER, EARLIER), "host:8095"))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    for told in (
        *("host:8095  up 1 min 50 s", "1 of 2 workers ready", "4 of 1024 connections"),
        *("6 images in flight, 2 waiting", "worker restarts: 1", "engine process 12 GONE"),
        *("worker 1 is not ready: node 'cnn' is broken", "queue_full 5.0", "overloaded 5.0"),
        *("cnn.forward", "1/2 1 stuck", "50%", "idle 20% full 80%", "no answer for 7 s"),
        *("0 H200", "75%", "8.0 of 16.0 GiB"),
    ):
        assert told in text
    row = next(line for line in text.splitlines() if line.startswith("infer_batch"))
    assert row.split() == ["infer_batch", "20.0", "6.2", "7.5", "350"]


def test_it_shows_a_server(scripted_server: Any, capsys: pytest.CaptureFixture[str]) -> None:
    client = scripted_server.client()
    client.infer_batch(inference.InferenceParams("u", b"best=1"))
    client.close()
    port = ("--port", str(scripted_server.port))
    assert main([*ONCE, *port]) == 0
    text = capsys.readouterr().out
    assert f"127.0.0.1:{scripted_server.port}  up" in text
    assert "1 of 1 workers ready" in text
    assert "infer_batch" in text
    assert main([*ONCE, *port, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["stats"]["images"]["ok"] == 1
    assert told["change"]["calls_per_s"].keys() == {"ok"}


def test_names_are_shown_as_they_are() -> None:
    names = ("[bold]", "[/closed]", ":warning:")
    named = replace(LATER, nodes=dict.fromkeys(names, NodeStats(items=1)))
    out = io.StringIO()
    watch(lambda: named, "host:8095", out, interval_s=1e-6, once=True, as_json=False)
    for name in names:
        assert f"\n{name} " in out.getvalue()


def test_a_server_that_is_away_for_a_while_is_asked_again() -> None:
    answers: list[Stats | ClientError | BaseException] = [
        EARLIER,
        ConnectionFailedError("h:1: the connection broke"),
        LATER,
        KeyboardInterrupt(),
    ]

    def read() -> Stats:
        answer = answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    out = io.StringIO()
    with pytest.raises(KeyboardInterrupt):
        watch(read, "h:1", out, interval_s=0.0, once=False, as_json=False)
    assert "h:1: the connection broke\nIt is asked again." in out.getvalue()
    assert "engine process 12" in out.getvalue()


def test_no_server_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*ONCE, "--port", "1"]) == 3
    assert "no server listens there" in capsys.readouterr().err


def test_output_that_cannot_be_written_is_no_traceback(scripted_server: Any) -> None:
    top = [sys.executable, "-m", "service.client", "top", "--json", "--interval-s", "0.01"]
    top += ["--port", str(scripted_server.port)]
    with subprocess.Popen(top, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as ended:
        assert ended.stdout is not None
        assert ended.stderr is not None
        assert ended.stdout.read(9) == b'{"stats":'
        ended.stdout.close()
        assert (ended.wait(30), ended.stderr.read()) == (141, b"")
    with Path("/dev/full").open("wb") as full:
        failed = subprocess.run([*top, "--once"], stdout=full, stderr=subprocess.PIPE, timeout=30)
    assert failed.returncode == 1
    assert failed.stderr == b"error: the output cannot be written: No space left on device\n"
