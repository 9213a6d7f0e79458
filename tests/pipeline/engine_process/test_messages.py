"""What a worker and the engine process tell each other."""

from __future__ import annotations

import os
import socket
from array import array
from collections.abc import Iterator

import pytest

from interfaces.messages import from_json, to_json
from pipeline.engine_process.connected_worker import Worker
from pipeline.engine_process.messages import (
    FROM_WORKER,
    TO_WORKER,
    CannotRun,
    EngineProcessSettings,
    SharedSlots,
    SlotNumbers,
)
from service.logs.log_settings import LogSettings
from service.processes.control_channel import ControlChannel

Ends = tuple[socket.socket, socket.socket]


@pytest.fixture
def ends() -> Iterator[Ends]:
    ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
    with ours, theirs:
        yield ours, theirs


def test_settings_are_the_same_text_in_each_worker() -> None:
    document = {"node": {"backend": "DecodeMat", "max": 4}, "device_id": "0,1"}
    settings = EngineProcessSettings(document, "node", "auto", None, 2.5, LogSettings())
    other_order = EngineProcessSettings(
        dict(reversed(document.items())), "node", "auto", None, 2.5, LogSettings()
    )
    assert to_json(settings) == to_json(other_order)
    assert from_json(to_json(settings), [EngineProcessSettings]) == settings


def test_slot_numbers_follow_the_messages_on_one_socket(ends: Ends) -> None:
    ours, theirs = ends
    assert ControlChannel(ours, FROM_WORKER).send(CannotRun("no model"))
    numbers = SlotNumbers(ours)
    numbers.send(array("I", [3, 1]))
    numbers.send(array("I", range(256)))
    received = ControlChannel(theirs, TO_WORKER).receive()
    assert received is not None
    assert received.content == CannotRun("no model")
    heard = SlotNumbers(theirs)
    assert heard.receive().tolist() == [3, 1]
    assert heard.receive().tolist() == list(range(256))
    ours.close()
    with pytest.raises(EOFError):
        heard.receive()


def test_what_was_sent_before_the_end_is_received_where_something_was_left_unread(
    ends: Ends,
) -> None:
    ours, theirs = ends
    theirs.send(b"unread")
    SlotNumbers(ours).send(array("I", [7]))
    ours.close()
    heard = SlotNumbers(theirs)
    assert heard.receive().tolist() == [7]
    with pytest.raises(EOFError):
        heard.receive()


def test_a_worker_that_hangs_up_before_its_greeting_is_an_end(ends: Ends) -> None:
    ours, theirs = ends
    theirs.close()
    with pytest.raises(EOFError):
        Worker(ours, 0)


def test_a_greeting_without_its_descriptor_is_an_error(ends: Ends) -> None:
    ours, theirs = ends
    ControlChannel(theirs, TO_WORKER).send(SharedSlots(2, 4096))
    with pytest.raises(OSError, match=os.strerror(24)):
        Worker(ours, 0)
