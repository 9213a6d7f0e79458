"""What a call means stays what it is, with a front end between the client and the server."""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from cluster import replicas
from cluster.replica_entry import ReplicaEntry
from cluster.replica_server import ReplicaServer
from idl import inference
from service.client import Client
from service.client.errors import (
    DeadlineExceededError,
    InternalServerError,
    InvalidImageError,
    InvalidRequestError,
    OverloadedError,
)
from service.handlers.handler_settings import HandlerSettings
from service.handlers.null import NullHandler
from service.images.decode_memory import DECODE_MEMORY
from service.options.server_settings import ServerSettings
from tests.cluster.conftest import Parts
from tests.line_counts import check, counting, lines_each
from tests.service.conftest import NUM_CLASSES, TIMEOUT_S, RunningServer, ScriptedHandler, Wire
from tests.service.pictures import PICTURE
from tests.waiting import wait_until


def _image(text: str) -> bytes:
    return PICTURE + text.encode()


def _client(server: RunningServer, **settings: float) -> Client:
    return Client(port=server.port, retries=0, **settings)  # type: ignore[arg-type]


def test_a_call_of_several_images_loses_only_the_bad_one(parts: Parts) -> None:
    server, _ = parts.front_end(parts.replica()[1])
    images = [_image("best=3"), _image("invalid"), _image("late"), _image("best=1")]
    with _client(server) as client:
        first, invalid, late, last = client.classify_batch(images, top_k=2)
    assert (first.class_id, last.class_id) == (3, 1)
    assert len(first.top_k) == 2
    assert isinstance(invalid, InvalidImageError)
    assert "no image at all" in str(invalid)
    assert isinstance(late, DeadlineExceededError)


@pytest.mark.parametrize("framed", [True, False])
def test_infer_batch_answers_as_upstream_does(parts: Parts, framed: bool) -> None:
    server, _ = parts.front_end(parts.replica()[1])
    client = server.client(framed=framed)
    result = client.infer_batch(inference.InferenceParams("é", _image("best=2")))
    assert (result.label, round(result.score, 6)) == ("class_2", 0.6)
    assert (result.uuid, result.class_id, result.top_k) == (None, None, None)
    with pytest.raises(inference.InvalidImage) as invalid:
        client.infer_batch(inference.InferenceParams("é", _image("invalid")))
    assert (invalid.value.uuid, invalid.value.message) == ("é", "no image at all")
    with pytest.raises(inference.DeadlineExceeded):
        client.infer_batch(inference.InferenceParams("é", _image("late")))
    with pytest.raises(inference.InternalError) as failed:
        client.infer_batch(inference.InferenceParams("é", _image("broken")))
    assert failed.value.error_id
    assert "secret" not in failed.value.message
    client.close()


def test_images_of_all_sizes_arrive_as_they_were_sent(parts: Parts) -> None:
    """More than a buffer of the kernel's, and more pieces than one system call takes."""
    _, entry = parts.replica(max_images_per_call=2000, max_queue=2000)
    server, _ = parts.front_end(entry, max_images_per_call=2000)
    large = _image("best=4" + " " * 5_000_000)
    many = [_image(f"best={index % NUM_CLASSES}") for index in range(1500)]
    with _client(server) as client:
        assert client.classify(large).class_id == 4
        found = [one.class_id for one in client.classify_batch(many)]
    assert found == [index % NUM_CLASSES for index in range(1500)]


@pytest.fixture
def _process_settings() -> Iterator[None]:
    """Undo what a replica sets for its own process and its children."""
    environment, limit_bytes = dict(os.environ), DECODE_MEMORY.limit_bytes
    yield
    os.environ.clear()
    os.environ.update(environment)
    DECODE_MEMORY.limit_bytes = limit_bytes


@pytest.mark.usefixtures("_process_settings")
def test_the_largest_message_of_a_client_fits_behind_the_front_end(parts: Parts) -> None:
    """It is longer there: with the time limit, and the trace."""
    most = 50_000
    settings = ServerSettings(port=0, max_queue_ms=0, max_frame_bytes=most)
    replica = ReplicaServer("null", HandlerSettings(), settings, "")
    host, port = replica.start()
    entry = ReplicaEntry("replica", host, port, "node", 1, "release")
    server, _ = parts.front_end(entry, max_frame_bytes=most)
    client = server.client()
    data = bytes(most - len(Wire.infer_batch(b"")))
    assert client.infer_batch(inference.InferenceParams("u1", data)).label == "tench"
    with pytest.raises(inference.InvalidRequest):
        client.infer_batch(inference.InferenceParams("u1", data + b"!"))
    client.close()
    replica.stop("the test is over")


def test_what_a_replica_refuses_is_refused_in_its_words(parts: Parts) -> None:
    server, _ = parts.front_end(parts.replica()[1])
    with _client(server) as client:
        with pytest.raises(InvalidRequestError, match=f"top_k must be 1 to {NUM_CLASSES}, got 0"):
            client.classify(_image("best=1"), top_k=0)
        with pytest.raises(InvalidRequestError, match="has 257 images"):
            client.classify_batch([_image("")] * 257)


def test_the_remaining_time_crosses_the_hop(parts: Parts) -> None:
    handler = ScriptedHandler()
    server, _ = parts.front_end(parts.replica(handler)[1], default_timeout_ms=20_000)
    with _client(server) as client:
        client.classify(_image(""), timeout_s=5.0)
    server.client().infer_batch(inference.InferenceParams("1", _image("")))
    own, of_server = (deadline for deadline in handler.deadlines[-2:] if deadline)
    assert 0 < own.timeout_ms <= 5000
    assert 5000 < of_server.timeout_ms <= 20_000


def test_a_time_limit_may_be_as_long_as_the_wire_has_it(parts: Parts) -> None:
    server, _ = parts.front_end(parts.replica(default_timeout_ms=0)[1], default_timeout_ms=0)
    [result] = server.client().infer_images(
        [inference.InferenceParams("u", _image("best=3"))],
        inference.InferOptions(timeout_ms=2**31 - 1),
    )
    assert result.class_id == 3


def test_a_replica_that_hangs_costs_a_call_its_time_and_no_more(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes the connection, and never answers."""
    # So that it is not tried again before the calls of a busy machine are over.
    for pause in ("_FIRST_PAUSE_S", "_LONGEST_PAUSE_S"):
        monkeypatch.setattr(replicas, pause, TIMEOUT_S)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        entry = parts.replica()[1]
        server, cluster = parts.front_end(entry)
        hung = type(entry)("hung", "127.0.0.1", silent.getsockname()[1], "node-2", 2, "release")
        cluster.show(hung)
        [late] = server.client().infer_images(
            [inference.InferenceParams("u", _image(""))], inference.InferOptions(timeout_ms=50)
        )
        assert late.error.code == inference.ErrorCode.DEADLINE_EXCEEDED
        assert late.uuid == "u"
        # With another one there, it is passed over from then on, for a while.
        cluster.show(hung, entry)
        with _client(server) as client:
            assert {client.classify(_image("best=1")).class_id for _ in range(5)} == {1}


def test_so_does_one_that_does_not_even_read(
    parts: Parts, caplog: pytest.LogCaptureFixture
) -> None:
    """More than the kernel's buffers take is still being sent when the time is over."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        entry = parts.replica()[1]
        server, cluster = parts.front_end(entry)
        cluster.show(type(entry)("hung", "127.0.0.1", silent.getsockname()[1], "n", 2, "release"))
        [late] = server.client().infer_images(
            [inference.InferenceParams("u", _image(" " * 15_000_000))],
            inference.InferOptions(timeout_ms=50),
        )
    assert late.error.code == inference.ErrorCode.DEADLINE_EXCEEDED
    assert "no reply" in caplog.text
    assert "the connection broke" not in caplog.text


def test_images_of_a_client_that_has_gone_are_dropped(parts: Parts) -> None:
    handler = ScriptedHandler()
    replica, entry = parts.replica(handler)
    server, _ = parts.front_end(entry)
    # An ended half of its connection is all that the kernel tells of a client that has gone.
    with server.connect() as sock:
        sock.sendall(Wire.frame(Wire.infer_batch(_image("wait"))))
        assert handler.entered.acquire(timeout=TIMEOUT_S)
    [deadline] = [one for one in handler.deadlines[-1:] if one]
    assert deadline.peer
    # The connection of the hop ends with that of the client.
    wait_until(deadline.is_disconnected)
    handler.release.set()
    wait_until(lambda: replica.server.stats().images["ok"] == 1)
    assert server.server.stats().images["disconnected"] == 1


def test_overload_is_told_with_its_hint_once_two_replicas_refuse(parts: Parts) -> None:
    handlers = ScriptedHandler(), ScriptedHandler()
    entries = [parts.replica(handler, max_queue=0)[1] for handler in handlers]
    server, _ = parts.front_end(*entries)
    with _client(server) as client, ThreadPoolExecutor(2) as threads:
        held = [threads.submit(client.classify, _image("wait")) for _ in entries]
        for handler in handlers:
            # One each: the second call goes where less is under way.
            assert handler.entered.acquire(timeout=TIMEOUT_S)
        with pytest.raises(OverloadedError) as refused:
            client.classify(_image(""))
        assert refused.value.retry_after_ms > 0
        for handler in handlers:
            handler.release.set()
        assert [one.result().class_id for one in held] == [0, 0]
    stats = server.server.stats()
    assert stats.refusals["replicas"] == 1
    assert stats.calls["infer_images"]["overloaded"] == 1


def test_a_call_on_a_replica_that_dies_is_answered_by_another(parts: Parts) -> None:
    dying, healthy = ScriptedHandler(), ScriptedHandler()
    first, entry = parts.replica(dying, drain_timeout_s=0.0)
    server, cluster = parts.front_end(entry)
    with _client(server) as client, ThreadPoolExecutor(1) as threads:
        call = threads.submit(client.classify, _image("wait best"))
        assert dying.entered.acquire(timeout=TIMEOUT_S)
        healthy.release.set()
        cluster.show(entry, parts.replica(healthy)[1])
        # With nothing to wait for, it cuts off what is in flight.
        first.stop()
        assert call.result().class_id == 0
        dying.release.set()
        assert client.health().ready
    assert server.server.stats().calls["infer_images"]["ok"] == 1


def test_no_connection_is_kept_of_a_replica_that_is_there_no_more(parts: Parts) -> None:
    handler = ScriptedHandler()
    replica, entry = parts.replica(handler)
    server, cluster = parts.front_end(entry)
    with _client(server) as client, ThreadPoolExecutor(1) as threads:
        call = threads.submit(client.classify, _image("wait"))
        assert handler.entered.acquire(timeout=TIMEOUT_S)
        cluster.show()
        handler.release.set()
        assert call.result().class_id == 0
        wait_until(lambda: replica.server.stats().connections == 0)


def test_without_another_replica_the_call_is_refused_and_may_come_again(parts: Parts) -> None:
    handler = ScriptedHandler()
    replica, entry = parts.replica(handler, drain_timeout_s=0.0)
    server, cluster = parts.front_end(entry)
    with _client(server) as client, ThreadPoolExecutor(1) as threads:
        call = threads.submit(client.classify, _image("wait"))
        assert handler.entered.acquire(timeout=TIMEOUT_S)
        replica.stop()
        with pytest.raises(OverloadedError, match="replica-1 died under the call"):
            call.result()
        handler.release.set()
        cluster.show()
        assert "no replica can take requests" in client.health().reason
        cluster.show(parts.replica()[1])
        assert client.classify(_image("best=2")).class_id == 2


def test_a_call_that_breaks_replicas_does_not_break_all_of_them(parts: Parts) -> None:
    """Each of these takes a call, and closes the connection without a reply."""
    with socket.create_server(("127.0.0.1", 0)) as breaking:
        taken = []

        def break_all() -> None:
            while True:
                try:
                    sock, _ = breaking.accept()
                except OSError:
                    return
                taken.append(sock.recv(1 << 16))
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                sock.close()

        thread = threading.Thread(target=break_all)
        thread.start()
        entry = parts.replica()[1]
        server, cluster = parts.front_end(entry)
        port = breaking.getsockname()[1]
        cluster.show(
            *(type(entry)(f"b{n}", "127.0.0.1", port, "node", n, "release") for n in range(5))
        )
        with _client(server) as client, pytest.raises(InternalServerError):
            client.classify(_image(""))
        breaking.shutdown(socket.SHUT_RDWR)
        thread.join(TIMEOUT_S)
    assert len(taken) == 3


def test_server_info_says_which_replica_and_node(parts: Parts) -> None:
    _, entry = parts.replica()
    server, _ = parts.front_end(entry)
    with _client(server) as client:
        info = client.server_info()
    assert info.settings["replica"] == "replica-1"
    assert info.settings["node"] == f"node-1 at 127.0.0.1:{entry.port}"
    assert info.settings["replicas"] == "1 (those of the test)"
    assert info.classes == NUM_CLASSES


def test_without_a_replica_the_front_end_still_tells_of_itself(parts: Parts) -> None:
    _, entry = parts.replica()
    server, cluster = parts.front_end(entry)
    with _client(server) as client:
        before = client.server_info()
        client.classify(_image("best=1"))
        cluster.show()
        info, stats, health = client.server_info(), client.stats(), client.health()
        cluster.show(entry)
        again = client.server_info()
    assert (info.model, info.classes, info.pid) == (before.model, NUM_CLASSES, os.getpid())
    assert info.settings["replica"] == info.settings["node"] == "none is ready"
    assert info.settings["replicas"] == "0 (those of the test)"
    assert (info.worker, info.workers) == (None, 0)
    assert "no replica answers, so calls of images are refused" in info.settings["note"]
    assert (stats.images["ok"], stats.workers, stats.wanted_workers) == (1, [], 1)
    assert not health.ready
    assert "no replica can take requests" in health.reason
    assert again.settings == before.settings


def test_a_replica_that_hangs_does_not_answer_for_the_server(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one is asked; without one, what was told last is what is known."""
    monkeypatch.setattr("cluster.front_end_service._INFO_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        entry = parts.replica()[1]
        server, cluster = parts.front_end(entry)
        hung = ReplicaEntry("a", "127.0.0.1", silent.getsockname()[1], "node-2", 2, "release")
        with _client(server) as client:
            cluster.show(hung, entry)
            assert {client.server_info().settings["replica"] for _ in range(3)} == {entry.name}
            cluster.show(hung)
            assert client.server_info().settings["replica"] == "none is ready"


def test_stats_never_fall_where_a_replica_ends(parts: Parts) -> None:
    entries = [parts.replica()[1] for _ in range(2)]
    server, cluster = parts.front_end(*entries)
    with _client(server) as client:
        client.classify_batch([_image("")] * 4)
        before = client.stats()
        cluster.show(entries[0])
        after = client.stats()
    assert before.images["ok"] == after.images["ok"] == 4
    assert before.stages["infer"].count == after.stages["infer"].count == 4
    assert [one.worker for one in before.workers] == [0, 1]
    assert (len(after.workers), after.worker_restarts) == (1, 1)


def test_a_large_reply_counts_as_memory_of_its_call(parts: Parts) -> None:
    """As on a server without a front end: its objects are many times their bytes."""
    _, entry = parts.replica()
    server, _ = parts.front_end(entry, max_buffered_bytes=400_000, max_frame_bytes=400_000)
    with _client(server) as client:
        assert client.classify_batch([_image("")] * 64)
        with pytest.raises(InvalidRequestError, match="decoded of it and its reply"):
            client.classify_batch([_image("")] * 200, top_k=NUM_CLASSES)


def test_a_forwarded_request_costs_what_it_cost(parts: Parts) -> None:
    """Lines of Python on both sides of the hop together; see tests.line_counts."""
    with counting("connection-") as counter:
        server, _ = parts.front_end(parts.replica(NullHandler())[1])
        client = server.client()
        request = [inference.InferenceParams("u", b"no image")]
        lines = lines_each(counter, lambda: client.infer_images(request))
        client.close()
    check("null request through a front end", lines)


def test_a_drain_answers_what_is_in_flight_on_a_replica(parts: Parts) -> None:
    handler = ScriptedHandler()
    server, cluster = parts.front_end(parts.replica(handler)[1])
    with _client(server) as client, ThreadPoolExecutor(1) as threads:
        call = threads.submit(client.classify, _image("wait"))
        assert handler.entered.acquire(timeout=TIMEOUT_S)
        server.server.stop()
        handler.release.set()
        assert call.result().class_id == 0
    server.join()
    assert (server.cut_off, cluster.is_closed) == (0, True)
