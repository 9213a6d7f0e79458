"""`stats` and HTTP of a server with several workers: one sum, from any worker, after any death."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from idl import inference
from interfaces.stats import Stats
from interfaces.structs import from_struct
from service.metrics.metric_table import METRICS
from service.options.server_settings import ServerSettings
from service.processes.stats_of_workers import StatsOfWorkers
from service.processes.stats_report import Report
from service.processes.supervisor import Supervisor
from service.processes.worker_messages import StatsRequest
from tests.service.metrics.metric_names import series_names

TIMEOUT_S = 30
Params = inference.InferenceParams
NULL = ("-m", "service", "--handler", "null", "--port", "0", "--metrics-port", "0")


def get(url: str) -> tuple[int, str]:
    try:
        with urlopen(url, timeout=TIMEOUT_S) as answer:  # noqa: S310 (of this test alone)
            return answer.status, answer.read().decode()
    except HTTPError as error:
        return error.code, error.read().decode()


def samples(text: str) -> dict[tuple[str, ...], float]:
    """Name and values of the labels to value."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_the_sum_is_the_same_everywhere_and_never_falls(start: Any, connect: Any) -> None:
    server = start(*NULL, "--workers", "2", "--drain-delay-s", "20")
    address = re.search(r"http://\S+/", server.read_until("metrics on http"))
    assert address
    http = address[0].rstrip("/")
    # The address answers from the start on, though no worker does yet.
    assert get(f"{http}/livez") == (200, "alive\n")
    status, text = get(f"{http}/readyz")
    assert (status, "the server starts" in text) in ((503, True), (200, False))
    assert samples(get(f"{http}/metrics")[1])["thriftpipe_workers",] <= 2
    port = server.port()
    clients = {client.server_info().worker: client for client in (connect(port), connect(port))}

    def stats(worker: int, hung: int | None = None) -> Stats:
        """What that worker answers, once no other one than `hung` was too busy to tell."""
        while True:
            found = from_struct(Stats, clients[worker].stats())
            if all(one.report_age_s == 0 or one.worker == hung for one in found.workers):
                return found

    for worker, calls in ((0, 3), (1, 4)):
        for _ in range(calls):
            clients[worker].infer_batch(Params("u", b"x"))
        clients[worker].infer_images([Params("u", b"x")] * 2)
    for worker in (0, 1):
        found = stats(worker)
        assert (found.calls["infer_batch"]["ok"], found.calls["infer_images"]["ok"]) == (7, 2)
        assert found.images["ok"] == 11
        assert found.latencies["infer_batch"].count == 7
        assert (found.connections, found.connections_opened, found.max_connections) == (2, 2, 1024)
        assert [one.worker for one in found.workers] == [0, 1]
        assert (found.worker_restarts, found.wanted_workers) == (0, 2)

    status, text = get(f"{http}/metrics")
    scraped = samples(text)
    assert status == 200
    assert scraped["thriftpipe_requests_total", "infer_batch", "ok"] == 7
    assert scraped["thriftpipe_images_total", "ok"] == 11
    assert scraped["thriftpipe_request_duration_seconds_count", "infer_batch"] == 7
    assert (scraped["thriftpipe_workers",], scraped["thriftpipe_ready",]) == (2, 1)
    assert {name for name, *_ in scraped} <= series_names()
    assert text.count("# TYPE ") == len(METRICS)
    assert get(f"{http}/livez") == (200, "alive\n")
    assert get(f"{http}/readyz") == (200, "ready\n")
    status, text = get(f"{http}/info")
    assert (status, json.loads(text)["handler"]) == (200, "null")
    status, text = get(f"{http}/metric")
    assert (status, "/metrics, /livez, /readyz, /info" in text) == (404, True)

    # A worker that hangs is left out of no sum, and its part is said to be old.
    pids = [one.pid for one in stats(0).workers]
    os.kill(pids[1], signal.SIGSTOP)
    found = stats(0, hung=1)
    assert found.images["ok"] == 11
    assert found.workers[1].report_age_s > 0
    # Once it goes on, its late answer is taken for none to the next question.
    clients[0].infer_batch(Params("u", b"x"))
    os.kill(pids[1], signal.SIGCONT)
    assert stats(0).images["ok"] == 12
    # What one that is killed has told of stays.
    os.kill(pids[1], signal.SIGKILL)
    line = server.read_until("is replaced")
    assert f"(pid {pids[1]})" in line
    assert f"worker with pid {pids[1]} counted in its last " in server.log
    server.read_until("worker 1 is warm")
    found = stats(0)
    assert found.worker_restarts == 1
    assert found.images["ok"] == 12
    assert found.connections_opened == 2
    assert pids[1] not in [one.pid for one in found.workers]
    assert samples(get(f"{http}/metrics")[1])["thriftpipe_worker_restarts_total",] == 1

    server.process.terminate()
    server.read_until("serving on for --drain-delay-s")
    assert get(f"{http}/readyz") == (503, "the server stops: SIGTERM\n")
    assert samples(get(f"{http}/metrics")[1])["thriftpipe_ready",] == 0
    assert get(f"{http}/livez") == (200, "alive\n")


def test_only_one_question_waits_for_a_worker_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.processes.stats_of_workers._LONGEST_ROUND_S", 0.0)
    questions: list[int] = []

    class Hung:
        index = 0
        control: Hung

        def send(self, question: StatsRequest) -> bool:
            questions.append(question.number)
            return True

    worker: Any = Hung()
    worker.control = worker
    summed = StatsOfWorkers(lambda: [worker], ServerSettings())
    told: list[Stats] = []
    summed.ask(told.append)
    assert not told
    summed.end_overdue()
    assert len(told) == 1
    # As a probe does that has a second.
    summed.ask(told.append)
    assert (len(told), questions) == (2, [1])
    summed.take(worker, 1, Report(Stats(images={"ok": 3}), None, None))
    summed.ask(told.append)
    assert (len(told), len(questions)) == (2, 2)
    summed.take(worker, questions[-1], Report(Stats(images={"ok": 4}), None, None))
    assert told[2].images == {"ok": 4}


def test_a_probe_does_not_wait_for_the_driver_of_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    def gpus() -> None:
        raise AssertionError("the driver is asked")

    monkeypatch.setattr("service.processes.supervisor.gpus", gpus)

    class Idle:
        ready = True
        why_not_ready = Supervisor.why_not_ready
        _stop_reason = ""
        _stats = StatsOfWorkers(list, ServerSettings())
        _sum_of_workers = Supervisor._sum_of_workers

        def soon(self, errand: Callable[[], None]) -> None:
            errand()

    idle: Any = Idle()
    assert idle.why_not_ready() == "no worker serves; they are being replaced"
