"""The channel between supervisor and worker: whole messages, descriptors, and its end."""

from __future__ import annotations

import resource
import socket
from dataclasses import dataclass

import pytest

from service.accepting.listener import StopRequest
from service.processes.control_channel import ControlChannel
from service.processes.worker_messages import (
    Drained,
    HeartbeatRequest,
    NewConnection,
    Ready,
    StartFailure,
)

Ends = tuple[ControlChannel, ControlChannel]


def test_messages_arrive_whole_and_in_order(ends: Ends) -> None:
    supervisor, worker = ends
    for number in range(5):
        assert worker.send(StartFailure("ü" * 1000, number))
    for number in range(5):
        message = supervisor.receive()
        assert message is not None
        assert message.content == StartFailure("ü" * 1000, number)
        assert not message.fds


def test_a_message_that_the_system_does_not_take_ends_nothing(ends: Ends) -> None:
    supervisor, worker = ends
    assert not supervisor.send(Ready("x" * 10**7))
    assert supervisor.send(HeartbeatRequest())
    message = worker.receive()
    assert message is not None
    assert message.content == HeartbeatRequest()


def test_a_connection_is_handed_over_and_the_giver_may_close_its_own(ends: Ends) -> None:
    supervisor, worker = ends
    client, accepted = socket.socketpair()
    with client, accepted:
        supervisor.send(NewConnection("a", False), [accepted.fileno()])
        accepted.close()
        message = worker.receive()
        assert message is not None
        with socket.socket(fileno=message.descriptor()) as taken:
            assert not taken.get_inheritable()
            taken.sendall(b"hello")
            assert client.recv(10) == b"hello"


def test_a_connection_that_is_not_taken_is_closed_with_the_channel(ends: Ends) -> None:
    supervisor, worker = ends
    client, accepted = socket.socketpair()
    with client, accepted:
        supervisor.send(NewConnection("a", False), [accepted.fileno()])
        accepted.close()
        worker.close()
        assert client.recv(10) == b""


def test_the_end_of_the_other_process_is_told_after_all_that_it_said(ends: Ends) -> None:
    """Even if it left something unread, which the kernel reports first."""
    supervisor, worker = ends
    supervisor.send(NewConnection("a", False))
    worker.send(Drained(0))
    worker.close()
    message = supervisor.receive()
    assert message is not None
    assert message.content == Drained(0)
    assert supervisor.receive() is None
    assert not supervisor.send(StopRequest("x"))


def test_a_descriptor_for_which_the_process_has_no_room_is_an_error(ends: Ends) -> None:
    supervisor, worker = ends
    supervisor.send(NewConnection("a", False), [supervisor.fileno()])
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        message = worker.receive()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert message is not None
    with pytest.raises(OSError, match="Too many open files"):
        message.descriptor()


@dataclass(frozen=True)
class Address:
    host: str


@dataclass(frozen=True)
class Move:
    number: int
    to: Address


def test_a_dataclass_within_a_message_arrives_as_one() -> None:
    ours, theirs = ControlChannel.pair([Move])
    assert ours.send(Move(1, Address("a")))
    message = theirs.receive()
    assert message is not None
    assert message.content == Move(1, Address("a"))
    ours.close()
    theirs.close()
