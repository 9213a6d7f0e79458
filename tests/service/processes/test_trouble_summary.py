"""The line that sums up what calls did not get."""

from __future__ import annotations

import json
import logging
import re
import signal
import threading
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
from thriftpy2.rpc import make_client

from idl import inference
from interfaces.stats import Stats
from service.logs.formats import Event
from service.processes.trouble_summary import TroubleSummary

TIMEOUT_S = 30
NULL = ("-m", "service", "--handler", "null", "--port", "0")
LOGGER = "service.processes.trouble_summary"


def fields(record: logging.LogRecord) -> dict[str, Any]:
    assert isinstance(record.msg, Event)
    return record.msg.known()


def test_only_what_is_new_is_told(caplog: pytest.LogCaptureFixture) -> None:
    summary = TroubleSummary()
    calls = {"ping": {"ok": 5}, "infer_batch": {"ok": 1, "overloaded": 3, "internal_error": 0}}
    counted = Stats(calls=calls, refusals={"queue_full": 3, "memory": 0}, images={"ok": 1})
    summary.tell(counted)
    summary.tell(counted)
    more = {**calls, "infer_images": {"overloaded": 1}}
    summary.tell(Stats(calls=more, refusals={"queue_full": 4}, images={"ok": 1, "late": 2}))
    first, second = map(fields, caplog.records)
    assert first.pop("period_s") >= 0
    assert first == {"calls": {"overloaded": 3}, "refusals": {"queue_full": 3}}
    assert second["calls"] == {"overloaded": 1}
    assert (second["refusals"], second["images"]) == ({"queue_full": 1}, {"late": 2})
    assert {record.levelname for record in caplog.records} == {"WARNING"}


def test_nothing_wrong_is_not_told(caplog: pytest.LogCaptureFixture) -> None:
    TroubleSummary().tell(Stats(calls={"ping": {"ok": 5}}, images={"ok": 5, "invalid_image": 0}))
    assert caplog.records == []


def test_a_period_begins_when_the_last_one_is_over() -> None:
    assert not TroubleSummary().is_due()
    summary = TroubleSummary(0.0)
    before_s = summary.due_s
    assert summary.is_due()
    assert summary.due_s >= before_s


class Told(logging.Handler):
    """Sets an event with the first line."""

    def __init__(self) -> None:
        super().__init__()
        self.record: logging.LogRecord | None = None
        self.came = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.record = self.record or record
        self.came.set()


def test_a_server_that_serves_tells_in_time(serve: Callable[..., Any], scripted: Any) -> None:
    told = Told()
    logging.getLogger(LOGGER).addHandler(told)
    try:
        server = serve(scripted)
        server.server._troubles = TroubleSummary(0.01)
        with closing(server.client()) as client, pytest.raises(inference.InvalidImage):
            client.infer_batch(inference.InferenceParams("u", b"invalid"))
        server.server.wake()
        assert told.came.wait(TIMEOUT_S)
    finally:
        logging.getLogger(LOGGER).removeHandler(told)
    assert told.record
    found = fields(told.record)
    assert (found["calls"], found["images"]) == ({"invalid_image": 1}, {"invalid_image": 1})


@pytest.mark.parametrize("workers", ["1", "2"])
def test_what_was_refused_before_a_stop_is_told_at_its_end(
    start: Callable[..., Any], workers: str
) -> None:
    server = start(*NULL, "--workers", workers, "--max-connections", "1")
    port = server.port()
    service, params = inference.InferenceService, inference.InferenceParams("u", b"x")
    with closing(make_client(service, "127.0.0.1", port, timeout=TIMEOUT_S * 1000)) as first:
        first.ping()
        for _ in range(3):
            refused = make_client(service, "127.0.0.1", port, timeout=TIMEOUT_S * 1000)
            with closing(refused), pytest.raises(inference.Overloaded):
                refused.infer_batch(params)
        # What USR1 adds to the stacks; it is the sum over all workers.
        server.process.send_signal(signal.SIGUSR1)
        stats = server.read_until("stats (SIGUSR1): ")
        assert '"infer_batch":{' in stats
        assert '"connections":3' in stats
    server.process.terminate()
    assert server.wait() == 0
    (line,) = (one for one in server.log.splitlines() if LOGGER in one)
    found = re.search(r"calls=(\S+) refusals=(\S+)$", line)
    assert found
    assert json.loads(found[1]) == {"overloaded": 3}
    assert json.loads(found[2]) == {"connections": 3}
    assert "worker" not in line
