"""The listener of a worker: what it receives from the supervisor, and what it reports."""

from __future__ import annotations

import selectors
import socket

import pytest

from service.accepting.listener import DrainNotice, StopRequest
from service.processes.control_channel import ControlChannel
from service.processes.worker_listener import WorkerListener
from service.processes.worker_messages import (
    ConnectionCounts,
    NewConnection,
    Ready,
)

Ends = tuple[ControlChannel, ControlChannel]


def test_a_worker_tells_what_it_has_taken_and_what_is_closed(ends: Ends) -> None:
    supervisor, worker = ends
    listener = WorkerListener(worker)
    client, accepted = socket.socketpair()
    with client, accepted, selectors.DefaultSelector() as selector:
        listener.start(selector, "null handler")
        supervisor.send(NewConnection("a:1", False), [accepted.fileno()])
        assert [key.fileobj for key, _ in selector.select()] == [worker]
        arrival = listener.accept()
        assert arrival is not None
        assert arrival.address == "a:1"
        arrival.sock.close()
        listener.count_closed(1)
        listener.close()
        assert not selector.get_map()
    said = [supervisor.receive() for _ in range(3)]
    assert [message and message.content for message in said] == [
        Ready("null handler"),
        ConnectionCounts(1, 0, 0),
        ConnectionCounts(1, 1, 0),
    ]


def test_a_connection_for_which_the_worker_has_no_descriptor_counts_as_closed(
    ends: Ends, caplog: pytest.LogCaptureFixture
) -> None:
    supervisor, worker = ends
    supervisor.send(NewConnection("a:1", True))
    assert WorkerListener(worker).accept() is None
    message = supervisor.receive()
    assert message is not None
    assert message.content == ConnectionCounts(1, 1, 1)
    assert "closed a:1: this process has no descriptor left for it; allow more" in caplog.text


def test_the_supervisor_tells_when_to_stop(ends: Ends) -> None:
    supervisor, worker = ends
    listener = WorkerListener(worker)
    for message in (DrainNotice("SIGTERM"), StopRequest("SIGTERM")):
        supervisor.send(message)
        assert listener.accept() == message
