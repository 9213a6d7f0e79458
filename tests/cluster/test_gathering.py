"""Calls that front ends send together mean what they mean alone."""

from __future__ import annotations

import gc
import logging
import math
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest

from cluster.gathered_message import GatheredMessage, WaitingCall
from cluster.gathered_method import EACH, NAME
from cluster.hop import HopConnection, HopError
from cluster.infer_arguments import gathered, options_piece, requests_in_pieces
from cluster.replica_entry import ReplicaEntry
from cluster.replica_server import ReplicaServer
from cluster.replicas import Replica
from idl import inference
from service.client import Client
from service.client.errors import DeadlineExceededError, InvalidImageError, OverloadedError
from service.handlers.deadline import Deadline
from service.handlers.handler_settings import HandlerSettings
from service.handlers.null import NullHandler
from service.handlers.outcomes import ImageFailure, Scores
from service.logs.formats import Event
from service.logs.queued import REQUESTS
from service.options.server_settings import ServerSettings
from service.server import Server
from service.wire.transport import PlainTransport
from tests.cluster.conftest import FixedCluster, Parts
from tests.service.conftest import TIMEOUT_S, RunningServer, ScriptedHandler, Wire
from tests.service.pictures import PICTURE
from tests.waiting import wait_until


def _image(text: str) -> bytes:
    return PICTURE + text.encode()


class BeginningHandler(ScriptedHandler):
    """One whose callers need not wait."""

    def begin(
        self, images: Sequence[bytes], deadline: Deadline, done: Callable[[], None]
    ) -> Callable[[], list[Scores | ImageFailure]]:
        self.deadlines.append(deadline)
        if not any(image.startswith(PICTURE + b"wait") for image in images):
            done()
            return lambda: [self._outcome(image) for image in images]

        def wait() -> None:
            self.entered.release()
            assert self.release.wait(TIMEOUT_S)
            done()

        threading.Thread(target=wait).start()
        return lambda: [
            self._outcome(image) if self.release.is_set() else deadline.failure()
            for image in images
        ]


Handlers = type[ScriptedHandler]


@pytest.fixture(params=[ScriptedHandler, BeginningHandler])
def scripted(request: pytest.FixtureRequest) -> Handlers:
    """Handlers of either kind, since a replica treats them differently."""
    kind: Handlers = request.param
    return kind


class Callers:
    """Clients of a front end, each with a connection, of whose calls the first ones leave together.

    Args:
        server: the front end.
        cluster: what it knows of its replicas.
        count: of the calls that the first message waits for.
    """

    def __init__(self, server: RunningServer, cluster: FixedCluster, count: int) -> None:
        self.server = server
        self.cluster = cluster
        self.together = count
        self.messages = 0
        self._stack = ExitStack()
        self._threads = self._stack.enter_context(ThreadPoolExecutor(count))

    def wait_for_others(self) -> None:
        """What the thread of a call does before it sends all that are there."""
        assert self.cluster.replicas
        gatherings = [one.gathering for one in self.cluster.replicas.all()]
        wait_until(lambda: sum(one.pending for one in gatherings) >= self.together)
        self.together = 0
        self.messages += 1

    def ask(self, text: str, **options: Any) -> Future[Any]:
        """A call of one image."""

        def call() -> Any:
            with Client(port=self.server.port, retries=0) as client:
                return client.classify(_image(text), **options)

        return self._threads.submit(call)

    def close(self) -> None:
        self._stack.close()


Gather = Callable[..., Callers]


@pytest.fixture
def gather(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gather]:
    """Front ends that gather from the first call on, and wait until as many calls are there."""
    monkeypatch.setattr("cluster.forwarder.FEW_IMAGES", 0)
    with ExitStack() as stack:

        def start(count: int, *entries: ReplicaEntry, **settings: Any) -> Callers:
            callers = Callers(*parts.front_end(*entries, **settings), count)
            stack.callback(callers.close)
            monkeypatch.setattr("cluster.gathering._let_others_come", callers.wait_for_others)
            return callers

        yield start


def test_a_lone_caller_waits_for_nobody(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    moments: list[None] = []
    monkeypatch.setattr("cluster.gathering._let_others_come", lambda: moments.append(None))
    server, _ = parts.front_end(parts.replica()[1])
    with Client(port=server.port) as client:
        for index in range(20):
            assert client.classify(_image(f"best={index % 5}")).class_id == index % 5
    assert not moments


def test_calls_of_many_cross_in_one_message(
    parts: Parts, gather: Gather, scripted: Handlers
) -> None:
    replica, entry = parts.replica(scripted())
    callers = gather(6, entry)
    found = [callers.ask(f"best={number % 5}", top_k=1 + number % 3) for number in range(6)]
    for number, one in enumerate(found):
        result = one.result()
        assert (result.class_id, len(result.top_k)) == (number % 5, 1 + number % 3)
    assert callers.messages == 1
    stats = replica.server.stats()
    # One connection, which the front end has had since it asked for the server's facts.
    assert stats.connections_opened == 1
    assert stats.calls["infer_images"]["ok"] == stats.images["ok"] == 6


def test_a_connection_carries_calls_of_either_kind(parts: Parts, gather: Gather) -> None:
    replica, entry = parts.replica(NullHandler())
    callers = gather(3, entry)
    for _ in range(5):
        assert [one.result().label for one in [callers.ask("") for _ in range(3)]] == ["tench"] * 3
        callers.together = 1
        assert callers.ask("").result().label == "tench"
        callers.together = 3
    assert callers.messages == 10
    assert replica.server.stats().connections_opened == 1


def test_more_calls_than_a_message_takes_leave_in_several(
    parts: Parts, gather: Gather, scripted: Handlers
) -> None:
    callers = gather(40, parts.replica(scripted())[1])
    found = [callers.ask(f"best={number % 5}") for number in range(40)]
    assert [one.result().class_id for one in found] == [number % 5 for number in range(40)]
    assert callers.messages == 3


def test_where_calls_do_not_come_together_few_wait_for_others(parts: Parts, gather: Gather) -> None:
    callers = gather(1, parts.replica()[1])
    for _ in range(60):
        assert callers.ask("best=2").result().class_id == 2
    assert 0 < callers.messages < 30


def test_large_calls_go_alone(parts: Parts, gather: Gather, scripted: Handlers) -> None:
    callers = gather(1, parts.replica(scripted())[1])
    assert callers.ask("best=3" + " " * 200_000).result().class_id == 3
    with Client(port=callers.server.port) as client:
        assert len(client.classify_batch([_image("")] * 5)) == 5
    assert callers.messages == 0


def test_a_bad_image_fails_alone(parts: Parts, gather: Gather, scripted: Handlers) -> None:
    callers = gather(3, parts.replica(scripted())[1])
    good, bad, broken = (callers.ask(text) for text in ("best=3", "invalid", "raise"))
    assert good.result().class_id == 3
    with pytest.raises(InvalidImageError, match="no image at all"):
        bad.result()
    with pytest.raises(Exception, match="error_id"):
        broken.result()


def test_an_answer_waits_for_no_neighbour_and_each_has_its_own_time(
    parts: Parts, gather: Gather, scripted: Handlers
) -> None:
    handler = scripted()
    callers = gather(4, parts.replica(handler)[1])
    hung = callers.ask("wait", timeout_s=0.5)
    slow = callers.ask("wait", timeout_s=60.0)
    quick = [callers.ask("best=1"), callers.ask("best=2")]
    assert [one.result().class_id for one in quick] == [1, 2]
    assert not hung.done()
    with pytest.raises(DeadlineExceededError):
        hung.result()
    assert not slow.done()
    handler.release.set()
    assert slow.result().class_id == 0
    timeouts = sorted(one.timeout_ms for one in handler.deadlines[-4:] if one)
    assert timeouts[0] <= 500 < timeouts[1]


def test_images_of_a_client_that_has_gone_are_dropped_alone(
    parts: Parts, gather: Gather, scripted: Handlers
) -> None:
    handler = scripted()
    _, entry = parts.replica(handler)
    callers = gather(3, entry)
    others = [callers.ask("wait"), callers.ask("wait")]
    with callers.server.connect() as sock:
        sock.sendall(Wire.frame(Wire.infer_batch(_image("wait"))))
        for _ in range(3):
            assert handler.entered.acquire(timeout=TIMEOUT_S)
    deadlines = [one for one in handler.deadlines[-3:] if one]
    wait_until(lambda: any(one.is_disconnected() for one in deadlines))
    assert sum(one.is_disconnected() for one in deadlines) == 1
    wait_until(lambda: callers.server.server.stats().images["disconnected"] == 1)
    handler.release.set()
    assert [one.result().class_id for one in others] == [0, 0]
    assert callers.ask("best=4").result().class_id == 4


def test_a_front_end_that_goes_takes_all_its_calls_with_it(
    parts: Parts, gather: Gather, scripted: Handlers
) -> None:
    handler = scripted()
    callers = gather(3, parts.replica(handler)[1], drain_timeout_s=0.0)
    lost = [callers.ask("wait") for _ in range(3)]
    for _ in range(3):
        assert handler.entered.acquire(timeout=TIMEOUT_S)
    callers.server.stop()
    for one in lost:
        with pytest.raises(Exception, match=r"closed|broke|lost"):
            one.result()
    wait_until(lambda: all(one.is_disconnected() for one in handler.deadlines[-3:] if one))
    handler.release.set()


def test_each_call_is_refused_or_admitted_by_itself(
    parts: Parts, gather: Gather, scripted: Handlers
) -> None:
    handler = scripted()
    replica, entry = parts.replica(handler, max_queue=1)
    callers = gather(4, entry)
    found = [callers.ask("wait", timeout_s=60.0) for _ in range(4)]
    # One is at work and one may wait.
    wait_until(lambda: sum(one.done() for one in found) == 2)
    for refused in [one for one in found if one.done()]:
        with pytest.raises(OverloadedError) as told:
            refused.result()
        assert told.value.retry_after_ms > 0
    assert replica.server.stats().calls_in_flight == 2
    handler.release.set()
    admitted = [one for one in found if one.exception() is None]
    assert [one.result().class_id for one in admitted] == [0, 0]
    assert replica.server.stats().refusals["queue_full"] == 2


def test_what_is_refused_goes_to_one_other_replica(
    parts: Parts, gather: Gather, scripted: Handlers
) -> None:
    handler, spare_handler = scripted(), scripted()
    spare_handler.release.set()
    _, entry = parts.replica(handler, max_queue=0)
    spare, last_choice = parts.replica(spare_handler)
    callers = gather(3, entry)
    callers.cluster.show(entry, replace(last_choice, why_not_ready="it rebuilds its engine"))
    found = [callers.ask("wait", timeout_s=60.0) for _ in range(3)]
    wait_until(lambda: sum(one.done() for one in found) == 2)
    handler.release.set()
    assert [one.result().class_id for one in found] == [0, 0, 0]
    assert spare.server.stats().images["ok"] == 2


def test_calls_on_a_replica_that_dies_are_answered_by_another(
    parts: Parts, gather: Gather, scripted: Handlers
) -> None:
    dying, healthy = scripted(), scripted()
    healthy.release.set()
    first, entry = parts.replica(dying, drain_timeout_s=0.0)
    callers = gather(4, entry)
    found = [callers.ask(text) for text in ("wait", "wait", "best=3", "wait")]
    for _ in range(3):
        assert dying.entered.acquire(timeout=TIMEOUT_S)
    assert found[2].result().class_id == 3
    other, second = parts.replica(healthy)
    callers.cluster.show(entry, second)
    first.stop()
    assert [one.result().class_id for one in found] == [0, 0, 3, 0]
    dying.release.set()
    assert other.server.stats().images["ok"] == 3
    # What is asked again is asked alone.
    assert callers.messages == 1


def test_a_replica_that_hangs_costs_each_call_its_own_time(
    parts: Parts, gather: Gather, scripted: Handlers
) -> None:
    """It takes the connection, and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        entry = parts.replica(scripted())[1]
        callers = gather(2, entry)
        hung = ReplicaEntry("hung", "127.0.0.1", silent.getsockname()[1], "node-2", 2, "release")
        callers.cluster.show(hung)
        soon, later = callers.ask("", timeout_s=0.05), callers.ask("", timeout_s=60.0)
        with pytest.raises(DeadlineExceededError):
            soon.result()
        assert not later.done()
        sock, _ = silent.accept()
        callers.cluster.show(entry)
        # The other one may have a connection of its own, which waits to be accepted.
        for open_end in (sock, silent):
            open_end.close()
        assert later.result().class_id == 0


def test_a_replica_that_knows_no_such_message_is_asked_for_each(
    parts: Parts, gather: Gather
) -> None:
    replica, entry = parts.replica(kind=Server)
    callers = gather(3, entry)
    for _ in range(2):
        found = [callers.ask(f"best={number}") for number in range(3)]
        assert [one.result().class_id for one in found] == [0, 1, 2]
    assert callers.messages == 1
    assert replica.server.stats().calls["unknown"]["protocol_error"] == 1


def test_calls_that_are_as_large_as_a_client_may_send_are_gathered(gather: Gather) -> None:
    most = {"max_frame_bytes": 30_000, "max_message_values": 12, "max_message_depth": 3}
    settings = ServerSettings(port=0, max_queue_ms=0, **most)
    replica = ReplicaServer("null", HandlerSettings(), settings, "")
    host, port = replica.start()
    callers = gather(4, ReplicaEntry("replica", host, port, "node", 1, "release"), **most)
    found = [callers.ask(" " * 29_000) for _ in range(4)]
    assert [one.result().label for one in found] == ["tench"] * 4
    assert callers.messages == 1
    assert "unknown" not in replica.server.stats().calls
    replica.stop("the test is over")


def test_nonsense_for_a_reply_is_not_taken_for_one(
    parts: Parts, gather: Gather, scripted: Handlers
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as strange:
        entry = parts.replica(scripted())[1]
        callers = gather(2, entry)
        other = ReplicaEntry("strange", "127.0.0.1", strange.getsockname()[1], "n", 2, "release")
        callers.cluster.show(other)
        found = [callers.ask("best=1"), callers.ask("best=2")]
        sock, _ = strange.accept()
        with sock:
            assert sock.recv(1 << 16)
            callers.cluster.show(entry)
            sock.sendall(Wire.frame(Wire.header(b"infer_images", 2, sequence_id=200) + b"\0"))
            assert [one.result().class_id for one in found] == [1, 2]


def test_a_message_that_is_not_sent_ends_all_its_calls() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        entry = ReplicaEntry("gone", "127.0.0.1", closed.getsockname()[1], "n", 1, "release")
    calls = [WaitingCall([], math.inf, None) for _ in range(3)]
    # As of a thread that is told to send when its own time has just passed.
    calls[0].woken.release()
    message = GatheredMessage(calls, Replica(entry))
    message.send()
    for call in calls:
        with pytest.raises(HopError, match="cannot connect"):
            message.result(call)


def test_a_replica_hears_no_client_go_once_all_is_answered(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image that is late may still be asked for its client, when the next message is there."""
    handler = BeginningHandler()
    _, entry = parts.replica(handler)
    connection = HopConnection(entry.host, entry.port)
    request = inference.InferenceParams("u", _image("best=2"))
    call = [*requests_in_pieces([request]), options_piece(inference.InferOptions())]
    is_there = threading.Event()
    send = PlainTransport.send

    def send_and_dawdle(self: PlainTransport, data: bytes) -> None:
        send(self, data)
        assert is_there.wait(TIMEOUT_S)
        assert (deadline := handler.deadlines[-1])
        assert not deadline.is_disconnected()

    def ask() -> None:
        connection.send(NAME, 255, gathered([call]), math.inf, None)

    def class_id() -> int:
        [reply] = connection.receive()
        return int(connection.decoded(EACH, 0, reply).success[0].class_id)

    monkeypatch.setattr(PlainTransport, "send", send_and_dawdle)
    try:
        ask()
        assert class_id() == 2
        ask()
        is_there.set()
        assert class_id() == 2
    finally:
        is_there.set()
        connection.close()


@pytest.fixture
def no_search_for_garbage() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _waiting_calls() -> list[WaitingCall]:
    return [one for one in gc.get_objects() if isinstance(one, WaitingCall)]


@pytest.mark.usefixtures("no_search_for_garbage")
def test_nothing_is_kept_of_calls_that_are_answered(
    parts: Parts, gather: Gather, scripted: Handlers
) -> None:
    handler = scripted()
    callers = gather(3, parts.replica(handler)[1])
    slow = callers.ask("wait", timeout_s=60.0)
    for quick in [callers.ask("best=1"), callers.ask("best=1")]:
        assert quick.result().class_id == 1
    assert not any(call.pieces for call in _waiting_calls())
    handler.release.set()
    assert slow.result().class_id == 0
    wait_until(lambda: not _waiting_calls())


def test_each_call_has_its_own_line_and_trace(
    parts: Parts, gather: Gather, scripted: Handlers, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    # Only the logger of requests lets lines of that level through.
    caplog.handler.setLevel(logging.INFO)
    callers = gather(3, parts.replica(scripted(), access_log=True)[1])
    traces = [f"{number:032x}" for number in range(1, 4)]
    found = [
        callers.ask(text, traceparent=f"00-{trace}-00000000000000ff-01")
        for text, trace in zip(("best=1", "best=2", "invalid"), traces, strict=True)
    ]
    for one in found:
        one.exception()
    events = [
        record.msg.known()
        for record in caplog.records
        if record.name == REQUESTS and isinstance(record.msg, Event)
    ]
    told = {event["trace_id"]: event for event in events if event["method"] == "infer_images"}
    assert set(told) == set(traces)
    assert len(events) == len({id(event) for event in events})
    assert [told[trace].get("failed_images", 0) for trace in traces] == [0, 0, 1]
    assert {told[trace]["images"] for trace in traces} == {1}
    smallest = len(_image("best=1"))
    assert all(smallest < told[trace]["request_bytes"] < smallest + 200 for trace in traces)
