"""A worker's part in the stats of its server, and what it does where the supervisor hangs."""

from __future__ import annotations

import os
import threading

import pytest

from interfaces.stats import Stats
from service.processes.control_channel import ControlChannel
from service.processes.stats_report import (
    Report,
    encode_stats,
    file_with,
    read_report,
)
from service.processes.worker_listener import WorkerListener
from service.processes.worker_messages import (
    ConnectionCounts,
    HeartbeatRequest,
    StatsReport,
    StatsRequest,
    WholeStats,
    WholeStatsRequest,
)
from service.processes.worker_stats import WorkerStatsLine

OWN = Stats(images={"ok": 3})
WHOLE = Stats(images={"ok": 7})
Ends = tuple[ControlChannel, ControlChannel]


def source(*, with_info: bool) -> Report:
    del with_info
    return Report(OWN, None, None)


def told(supervisor: ControlChannel) -> object:
    message = supervisor.receive()
    assert message is not None
    if isinstance(message.content, StatsReport):
        return message.content.number, read_report(message.descriptor()).own
    return message.content


def answer(supervisor: ControlChannel) -> None:
    fd = file_with(encode_stats(WHOLE))
    supervisor.send(WholeStats(), [fd])
    os.close(fd)


def test_it_tells_with_each_heartbeat_and_when_it_is_asked(ends: Ends) -> None:
    supervisor, worker = ends
    line = WorkerStatsLine(worker)
    listener = WorkerListener(worker, line)
    supervisor.send(StatsRequest(4))
    listener.accept()
    assert not supervisor.has_message(), "there is nothing to tell before it serves"
    line.source = source
    for request in (HeartbeatRequest(), StatsRequest(5)):
        supervisor.send(request)
        listener.accept()
    assert [told(supervisor) for _ in range(3)] == [ConnectionCounts(0, 0, 0), (0, OWN), (5, OWN)]


def test_those_who_ask_meanwhile_share_the_next_answer(ends: Ends) -> None:
    supervisor, worker = ends
    line = WorkerStatsLine(worker)
    listener = WorkerListener(worker, line)
    found: list[Stats] = []
    threads = [threading.Thread(target=lambda: found.append(line.whole())) for _ in range(3)]
    threads[0].start()
    assert told(supervisor) == WholeStatsRequest()
    for thread in threads[1:]:
        thread.start()
    while len(line._next) < 2:
        pass
    # Their question is there only once the first one is answered.
    assert not supervisor.has_message()
    answer(supervisor)
    listener.accept()
    assert told(supervisor) == WholeStatsRequest()
    answer(supervisor)
    listener.accept()
    for thread in threads:
        thread.join()
    assert found == [WHOLE] * 3
    assert not supervisor.has_message()


def test_a_supervisor_that_hangs_is_told_of(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.processes.worker_stats._TIMEOUT_S", 0.01)
    line = WorkerStatsLine(ends[1])
    for _ in range(3):
        with pytest.raises(TimeoutError, match="the supervisor has not answered within"):
            line.whole()
    # However often it is asked, one question waits for the supervisor.
    assert told(ends[0]) == WholeStatsRequest()
    assert not ends[0].has_message()


def test_an_answer_that_cannot_be_read_is_told_of(
    ends: Ends, caplog: pytest.LogCaptureFixture
) -> None:
    supervisor, worker = ends
    listener = WorkerListener(worker, WorkerStatsLine(worker))
    supervisor.send(WholeStats())
    assert listener.accept() is None
    assert "cannot read the server's stats: Too many open files" in caplog.text
