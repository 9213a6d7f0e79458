"""The line between supervisor and worker, and what a worker makes of it."""

from __future__ import annotations

import selectors
import socket
from collections.abc import Iterator

import pytest

from service.arrivals import StopRequested
from service.control import ControlChannel
from service.handed_arrivals import HandedArrivals

Ends = tuple[ControlChannel, ControlChannel]


@pytest.fixture
def ends() -> Iterator[Ends]:
    ours, theirs = ControlChannel.pair()
    yield ours, theirs
    ours.close()
    theirs.close()


def test_messages_arrive_whole_and_in_order(ends: Ends) -> None:
    supervisor, worker = ends
    for number in range(5):
        assert worker.send({"number": number, "text": "ü" * 1000})
    for number in range(5):
        message = supervisor.receive()
        assert message is not None
        assert message.content == {"number": number, "text": "ü" * 1000}
        assert message.sock is None


def test_a_connection_is_handed_over_and_the_giver_may_close_its_own(ends: Ends) -> None:
    supervisor, worker = ends
    client, accepted = socket.socketpair()
    with client, accepted:
        supervisor.send({"peer": "a"}, accepted)
        accepted.close()
        message = worker.receive()
        assert message is not None
        assert message.sock is not None
        with message.sock as taken:
            assert not taken.get_inheritable()
            taken.sendall(b"hello")
            assert client.recv(10) == b"hello"


def test_a_connection_that_nobody_takes_is_closed_with_the_line(ends: Ends) -> None:
    supervisor, worker = ends
    client, accepted = socket.socketpair()
    with client, accepted:
        supervisor.send({"peer": "a"}, accepted)
        accepted.close()
        worker.close()
        assert client.recv(10) == b""


def test_the_end_of_the_other_process_is_told_after_all_that_it_said(ends: Ends) -> None:
    """Even if it left something unread, which the kernel reports first."""
    supervisor, worker = ends
    supervisor.send({"peer": "a"})
    worker.send({"cut_off": 0})
    worker.close()
    message = supervisor.receive()
    assert message is not None
    assert message.content == {"cut_off": 0}
    assert supervisor.receive() is None
    assert not supervisor.send({"stop": "x"})


def test_a_worker_tells_what_it_has_taken_and_what_is_closed(ends: Ends) -> None:
    supervisor, worker = ends
    arrivals = HandedArrivals(worker)
    client, accepted = socket.socketpair()
    with client, accepted, selectors.DefaultSelector() as selector:
        arrivals.let_in(selector, "null handler")
        supervisor.send({"peer": "a:1"}, accepted)
        assert [key.fileobj for key, _ in selector.select()] == [worker]
        arrival = arrivals.accept()
        assert arrival is not None
        assert arrival.peer == "a:1"
        arrival.sock.close()
        arrivals.left(1)
        arrivals.close()
        assert not selector.get_map()
    said = [supervisor.receive() for _ in range(3)]
    assert [message and message.content for message in said] == [
        {"running": "null handler"},
        {"taken": 1, "closed": 0},
        {"taken": 1, "closed": 1},
    ]


def test_a_connection_for_which_the_worker_has_no_descriptor_counts_as_closed(
    ends: Ends, caplog: pytest.LogCaptureFixture
) -> None:
    supervisor, worker = ends
    supervisor.send({"peer": "a:1"})
    assert HandedArrivals(worker).accept() is None
    message = supervisor.receive()
    assert message is not None
    assert message.content == {"taken": 1, "closed": 1}
    assert "closed a:1: this process has no descriptor left for it; allow more" in caplog.text


def test_the_supervisor_says_when_to_stop(ends: Ends) -> None:
    supervisor, worker = ends
    supervisor.send({"stop": "SIGTERM"})
    with pytest.raises(StopRequested, match="SIGTERM"):
        HandedArrivals(worker).accept()
