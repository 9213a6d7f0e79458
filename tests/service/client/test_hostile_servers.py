"""Servers that misbehave on real sockets: after each, the next call gets its own right answer."""

from __future__ import annotations

import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any

import pytest
from thriftpy2.protocol import TCyBinaryProtocol
from thriftpy2.thrift import TApplicationException
from thriftpy2.transport import TCyMemoryBuffer

from idl import inference
from service.client import (
    Client,
    ClientError,
    ConnectionFailedError,
    DeadlineExceededError,
    InternalServerError,
    InvalidReplyError,
    InvalidRequestError,
    OverloadedError,
    RefusedCallError,
)
from tests.service.client.clients import BOTH
from tests.serving import TIMEOUT_S

HOST = "127.0.0.1"
REPLY, EXCEPTION = 2, 3
SHORT_S = 0.1


class Call:
    """One request that has come, and replies to it."""

    def __init__(self, sock: socket.socket, name: str, sequence_id: int, data: list[bytes]) -> None:
        self.sock = sock
        self.name = name
        self.sequence_id = sequence_id
        self.data = data
        self.uuids: list[str] = []

    def reply(self, *, change: int = 0, uuid: str = "", fields: bool = True) -> bytes:
        """The right reply, framed; its label is the request's data."""
        results = [
            inference.InferenceResult(
                data.decode(),
                1.0,
                uuid=uuid or own,
                class_id=1 if fields else None,
                top_k=[inference.ClassScore(1, data.decode(), 1.0)],
            )
            for data, own in zip(self.data, self.uuids, strict=True)
        ]
        success = inference.InferenceService.infer_images_result(success=results)
        return self.encode(success, self.sequence_id + change)

    def encode(self, struct_: Any, sequence_id: int, name: str = "", kind: int = REPLY) -> bytes:
        buffer = TCyMemoryBuffer()
        protocol = TCyBinaryProtocol(buffer)
        protocol.write_message_begin(name or self.name, kind, sequence_id)
        protocol.write_struct(struct_)
        message = buffer.getvalue()
        return struct.pack(">i", len(message)) + message


Script = Callable[[Call], bytes | None]


class Peer:
    """Answers calls by a list of scripts, one each, and then rightly.

    A script returns what is sent; None closes the connection.
    """

    def __init__(self, scripts: Sequence[Script]) -> None:
        self._listener = socket.create_server((HOST, 0))
        self.port = self._listener.getsockname()[1]
        self._scripts = list(scripts)
        self._lock = threading.Lock()
        self.calls = 0
        self._threads = [threading.Thread(target=self._accept)]
        self._sockets: list[socket.socket] = []
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._sockets.append(sock)
            self._threads.append(threading.Thread(target=self._serve, args=(sock,)))
            self._threads[-1].start()

    def _serve(self, sock: socket.socket) -> None:
        try:
            while call := self._read(sock):
                with self._lock:
                    self.calls += 1
                    script = self._scripts.pop(0) if self._scripts else Call.reply
                data = script(call)
                if data is None:
                    break
                sock.sendall(data)
        except OSError:
            pass
        sock.close()

    def _read(self, sock: socket.socket) -> Call | None:
        header = sock.recv(4, socket.MSG_WAITALL)
        if len(header) < 4:
            return None
        buffer = TCyMemoryBuffer(sock.recv(struct.unpack(">i", header)[0], socket.MSG_WAITALL))
        protocol = TCyBinaryProtocol(buffer)
        name, _, sequence_id = protocol.read_message_begin()
        args = getattr(inference.InferenceService, f"{name}_args")()
        protocol.read_struct(args)
        requests = getattr(args, "requests", ())
        call = Call(sock, name, sequence_id, [request.data for request in requests])
        call.uuids = [request.uuid for request in requests]
        return call

    def stop(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join()
        for sock in self._sockets:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
        for thread in self._threads[1:]:
            thread.join()


@contextmanager
def peer(*scripts: Script) -> Iterator[Peer]:
    started = Peer(scripts)
    try:
        yield started
    finally:
        started.stop()


def strange_string(call: Call) -> bytes:
    """A reply whose label announces two billion bytes."""
    reply = bytearray(call.reply())
    at = reply.index(b"first")
    reply[at - 4 : at] = struct.pack(">i", 2_000_000_000)
    return bytes(reply)


@BOTH
@pytest.mark.parametrize(
    ("script", "error", "message"),
    [
        (lambda call: call.reply(change=1), InvalidReplyError, "sequence id"),
        (lambda call: call.reply(change=-1), InvalidReplyError, "sequence id"),
        (lambda call: call.reply(uuid="other"), InvalidReplyError, "is in the place of"),
        (lambda call: call.reply(fields=False), InvalidReplyError, "lacks 'class_id'"),
        (lambda call: call.reply() + b"more", InvalidReplyError, "bytes came"),
        (lambda call: call.reply() * 2, InvalidReplyError, "bytes came"),
        (lambda _: b"HTTP/1.1 400 Bad Request\r\n\r\n", InvalidReplyError, "was announced"),
        (lambda _: struct.pack(">i", 2**31 - 1), InvalidReplyError, "max_reply_bytes"),
        (lambda _: struct.pack(">i", -1), InvalidReplyError, "max_reply_bytes"),
        (lambda _: struct.pack(">i", 40) + bytes(40), InvalidReplyError, "no Thrift message"),
        (strange_string, InvalidReplyError, "its frame allows"),
        (lambda call: call.reply()[:20], DeadlineExceededError, "waited for the reply"),
        (lambda call: call.reply()[:3], DeadlineExceededError, "waited for the reply"),
        (lambda _: b"", DeadlineExceededError, "waited for the reply"),
        (lambda _: None, ConnectionFailedError, "after 0 bytes"),
        (
            lambda call: call.sock.sendall(call.reply()[:20]),
            ConnectionFailedError,
            "after 20 bytes",
        ),
    ],
)
def test_after_a_bad_reply_the_next_call_gets_its_own(
    kind: Any, script: Script, error: type[ClientError], message: str
) -> None:
    with peer(script) as server, kind(HOST, server.port) as client:
        timeout_s = SHORT_S if error is DeadlineExceededError else None
        with pytest.raises(error, match=message) as caught:
            client.classify(b"first", timeout_s=timeout_s)
        assert f"{HOST}:{server.port}" in str(caught.value)
        assert client.classify(b"second").label == "second"
        # It may have been read, so it was sent once.
        assert server.calls == 2


@BOTH
def test_a_late_reply_reaches_no_call(kind: Any) -> None:
    late = threading.Event()
    sent = threading.Event()

    def answer_late(call: Call) -> bytes:
        assert late.wait(30)
        reply = call.reply()
        sent.set()
        return reply

    with peer(answer_late) as server, kind(HOST, server.port, max_connections=1) as client:
        with pytest.raises(DeadlineExceededError):
            client.classify(b"first", timeout_s=SHORT_S)
        late.set()
        assert sent.wait(30)
        for label in ("second", "third"):
            assert client.classify(label.encode()).label == label


def test_bytes_that_come_between_calls_end_the_connection() -> None:
    came = threading.Event()

    def answer_twice(call: Call) -> bytes:
        call.sock.sendall(call.reply())
        assert came.wait(30)
        return call.reply()

    with peer(answer_twice) as server, Client(HOST, server.port) as client:
        assert client.classify(b"first").label == "first"
        kept = client._pool._idle._kept[-1]
        came.set()
        # Until the bytes are there; the client has not looked at them yet.
        kept._socket.settimeout(30)
        assert kept._socket.recv(1, socket.MSG_PEEK)
        assert client.classify(b"second").label == "second"
        assert not kept.sound


INTERRUPTED = """
import sys
from service.client import Client
with Client(sys.argv[1], int(sys.argv[2]), max_connections=1) as client:
    try:
        client.classify(b"first")
    except KeyboardInterrupt:
        print(client.classify(b"second").label)
"""


def test_an_interrupted_call_leaves_no_connection_behind() -> None:
    """In a process of its own: where a thread has used the CPU's matrix registers, a signal's frame
    outgrows the stack that pytest's fault handler has put up for it, and the process dies."""
    clients: SimpleQueue[subprocess.Popen[str]] = SimpleQueue()

    def interrupt(_: Call) -> bytes:
        clients.get(timeout=TIMEOUT_S).send_signal(signal.SIGINT)
        return b""

    with peer(interrupt) as server:
        command = [sys.executable, "-c", INTERRUPTED, HOST, str(server.port)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:
            clients.put(client)
            assert client.communicate(timeout=TIMEOUT_S)[0] == "second\n"
        assert client.returncode == 0


def declared(**fields: Any) -> Script:
    def answer(call: Call) -> bytes:
        result = inference.InferenceService.infer_images_result(**fields)
        return call.encode(result, call.sequence_id)

    return answer


@BOTH
def test_a_call_that_meets_the_end_of_a_kept_connection_has_a_fresh_one(kind: Any) -> None:
    """As with a server that stops, or a proxy that has waited long enough."""
    with peer(Call.reply, lambda _: None) as server, kind(HOST, server.port) as client:
        assert client.classify(b"first").label == "first"
        assert client.classify(b"second").label == "second"
        assert (server.calls, len(server._sockets)) == (3, 2)


@BOTH
def test_a_call_that_ends_connections_is_sent_twice_at_most(kind: Any) -> None:
    with (
        peer(Call.reply, lambda _: None, lambda _: None) as server,
        kind(HOST, server.port) as client,
    ):
        assert client.classify(b"first").label == "first"
        with pytest.raises(ConnectionFailedError, match="after 0 bytes") as caught:
            client.classify(b"second")
        assert (caught.value.unanswered, caught.value.refused) == (True, False)
        assert server.calls == 3


@BOTH
def test_a_call_whose_reply_has_begun_is_not_tried_again(kind: Any) -> None:
    with (
        peer(Call.reply, lambda call: call.sock.sendall(call.reply()[:20])) as server,
        kind(HOST, server.port) as client,
    ):
        assert client.classify(b"first").label == "first"
        with pytest.raises(ConnectionFailedError, match="after 20 bytes") as caught:
            client.classify(b"second")
        assert not caught.value.unanswered
        assert server.calls == 2


@BOTH
def test_overload_is_tried_again_on_the_same_connection(kind: Any) -> None:
    busy = declared(overloaded=inference.Overloaded("full", 1))
    with peer(busy, busy) as server, kind(HOST, server.port) as client:
        assert client.classify(b"first").label == "first"
        assert server.calls == 3
        assert len(server._sockets) == 1


@BOTH
def test_overload_is_told_once_the_retries_or_the_time_are_used_up(kind: Any) -> None:
    with (
        peer(declared(overloaded=inference.Overloaded("full", 60_000))) as server,
        kind(HOST, server.port) as client,
    ):
        with pytest.raises(OverloadedError, match="full") as caught:
            client.classify(b"first")
        assert caught.value.retry_after_ms == 60_000
        assert server.calls == 1
        assert client.classify(b"second").label == "second"


@BOTH
def test_the_time_may_end_while_the_server_is_asked_how_many_classes_it_has(kind: Any) -> None:
    refused = declared(invalid_request=inference.InvalidRequest("top_k must be 1 to 5, got 6"))
    with peer(refused, lambda _: b"") as server, kind(HOST, server.port) as client:
        with pytest.raises(DeadlineExceededError):
            client.classify(b"first", top_k=6, timeout_s=SHORT_S)
        assert server.calls == 2


@BOTH
def test_a_call_that_is_too_large_is_not_sent(kind: Any) -> None:
    with peer() as server, kind(HOST, server.port, max_request_bytes=200) as client:
        assert client.classify(b"first").label == "first"
        with pytest.raises(InvalidRequestError, match="max_request_bytes allows 200"):
            client.classify_batch([bytes(100), bytes(100)], top_k=6)
        assert client.classify(b"second").label == "second"
        assert (server.calls, len(server._sockets)) == (2, 1)


@BOTH
def test_a_failed_server_is_not_asked_again(kind: Any) -> None:
    failed = declared(internal_error=inference.InternalError("failed", "abc"))
    with peer(failed) as server, kind(HOST, server.port) as client:
        with pytest.raises(InternalServerError, match="failed abc") as caught:
            client.classify(b"first")
        assert caught.value.error_id == "abc"
        assert server.calls == 1


@BOTH
def test_a_refusal_of_a_real_server_is_told(kind: Any, serve: Any) -> None:
    server = serve(max_frame_bytes=1000)
    with kind(HOST, server.port) as client:
        with pytest.raises(ClientError, match="--max-frame-bytes"):
            client.classify(bytes(2000))
        assert client.classify(b"x").label == "tench"


@BOTH
def test_a_method_that_the_server_does_not_have(kind: Any, scripted_server: Any) -> None:
    del scripted_server.server._methods[b"health"]
    with kind(HOST, scripted_server.port) as client:
        with pytest.raises(RefusedCallError, match="unknown method 'health'"):
            client.health()
        client.ping()


@BOTH
def test_a_refusal_without_words_is_told_by_its_type(kind: Any) -> None:
    def refuse(call: Call) -> bytes:
        error = TApplicationException(TApplicationException.UNKNOWN_METHOD)
        return call.encode(error, call.sequence_id, kind=EXCEPTION)

    refused = pytest.raises(RefusedCallError, match=r"infer_images was refused: Unknown method$")
    with peer(refuse) as server, kind(HOST, server.port) as client, refused:
        client.classify(b"first")
