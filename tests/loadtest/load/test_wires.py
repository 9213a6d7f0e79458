"""HTTP as peers speak it: what is sent, what is read, and what becomes of a reply that is none."""

from __future__ import annotations

import base64
import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from loadtest.load.clients import ClientPool, Clients
from loadtest.load.images import LoadImage
from loadtest.load.wires import RefusedError, http_request, opener
from loadtest.records.run import Record
from loadtest.settings import LoadSettings

IMAGE = b"an image"


class _Peer(BaseHTTPRequestHandler):
    """Names an image by its bytes; refuses when it is told to."""

    protocol_version = "HTTP/1.1"
    refuses = False
    in_chunks = False
    answers: threading.Event | None = None

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        status, answer = 200, self._answer(body)
        if self.answers is not None:
            self.answers.wait()
        if self.refuses:
            status, answer = 503, {"detail": "too many"}
        content = json.dumps(answer).encode()
        self.send_response(status)
        if self.in_chunks:
            self.send_header("Transfer-Encoding", "chunked")
            parts = (content[:3], content[3:], b"")
            content = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)
        else:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _answer(self, body: bytes) -> Any:
        if head_bytes := self.headers.get("Inference-Header-Content-Length"):
            tensor = json.loads(body[: int(head_bytes)])["inputs"][0]
            data = body[int(head_bytes) :]
            assert len(data) == tensor["parameters"]["binary_data_size"]
            assert int.from_bytes(data[:4], "little") == len(data[4:])
            label = {"name": "label", "data": [data[4:].decode()]}
            return {"outputs": [{"name": "score", "data": [0.5]}, label]}
        if self.headers["Content-Type"] != "application/json":
            return {"label": body.decode(), "score": 0.5}
        document = json.loads(body)
        is_list = isinstance(document, list)
        text = document[0] if is_list else document["image"]
        answer = {"label": base64.b64decode(text).decode(), "score": 0.5}
        return [answer] if is_list else answer

    def log_message(self, *_: object) -> None:
        """Nothing."""


class _Server(ThreadingHTTPServer):
    # As many connections at once as an open loop makes.
    request_queue_size = 512

    def handle_error(self, *_: object) -> None:
        """A client that has gone is no news."""


@pytest.fixture
def peer() -> Iterator[type[_Peer]]:
    """A server's handler class, with `port`."""

    class Handler(_Peer):
        port = 0

    with _Server(("127.0.0.1", 0), Handler) as server:
        Handler.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield Handler
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("wire", ["http", "http-base64", "http-list", "mosec", "triton"])
def test_an_image_arrives_whole_and_its_answer_comes_back(wire: str, peer: Any) -> None:
    client = opener(wire)("127.0.0.1", peer.port, 30.0)
    for _ in range(2):
        answer = client.infer_batch(http_request(wire, IMAGE))
        assert (answer.label, answer.score, answer.error) == (IMAGE.decode(), 0.5, None)
    client.close()


@pytest.mark.parametrize("in_chunks", [False, True])
def test_a_refusal_is_told_and_the_connection_goes_on(in_chunks: bool, peer: Any) -> None:
    peer.in_chunks = in_chunks
    client = opener("http")("127.0.0.1", peer.port, 30.0)
    peer.refuses = True
    with pytest.raises(RefusedError, match=r"HTTP 503: .*too many"):
        client.infer_batch(http_request("http", IMAGE))
    peer.refuses = False
    assert client.infer_batch(http_request("http", IMAGE)).label == IMAGE.decode()
    client.close()


@pytest.mark.parametrize(
    ("reply", "error", "message"),
    [
        (b"", EOFError, "closed the connection"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", EOFError, "closed"),
        (b"HTTP/1.1 200 OK\r\n\r\n{}", ValueError, "its length"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n", EOFError, "closed"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", KeyError, "label"),
        (b"x" * 100_000, ValueError, "no end"),
    ],
)
def test_a_reply_that_is_none_is_never_taken_for_an_answer(
    reply: bytes, error: type[Exception], message: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(reply)

        thread = threading.Thread(target=answer)
        thread.start()
        client = opener("http")("127.0.0.1", listener.getsockname()[1], 30.0)
        with pytest.raises(error, match=message):
            client.infer_batch(http_request("http", IMAGE))
        client.close()
        thread.join()


@pytest.fixture(scope="module")
def client_pool() -> Iterator[ClientPool]:
    """A client process for all loads."""
    with ClientPool(1) as pool:
        yield pool


@pytest.fixture
def load(client_pool: ClientPool, tmp_path: Path) -> Callable[..., list[Record]]:
    """Puts a load of two images, of which one must get another label, on a server."""
    images = []
    for name in ("right", "wrong"):
        path = tmp_path / name
        path.write_text(name)
        images.append(LoadImage(path, name, "", len(name), 0, 0))

    def run(requests: int, **settings: Any) -> list[Record]:
        expected = {"right": "right", "wrong": "another"}
        options = LoadSettings(wire="http", request_client=1, **settings)
        with Clients(options, images, expected, client_pool) as clients:
            clients.start()
            start_s = 0.0
            clients.open_window(start_s)
            # A time far away: the count ends it.
            clients.wait(1e9, lambda: None, requests)
            return clients.stop(start_s, 1e9)

    return run


def sent(records: list[Record]) -> list[Record]:
    """Without what an open loop on a busy machine no longer gets to before the load ends."""
    return [it for it in records if it.error != "not sent: the load generator was too slow"]


@pytest.mark.parametrize("arrivals_per_s", [None, 500.0], ids=["closed loop", "open loop"])
def test_clients_check_the_answers_of_peers(
    arrivals_per_s: float | None, peer: Any, load: Callable[..., list[Record]]
) -> None:
    records = load(50, port=peer.port, arrivals_per_s=arrivals_per_s)
    failed = {record.image: record.failed_images for record in sent(records)}
    assert failed == {"right": 0, "wrong": 1}
    errors = {record.error for record in sent(records) if record.image == "wrong"}
    assert errors == {"wrong label 'wrong', alone it gets 'another'"}


def test_an_open_loop_goes_on_where_nothing_is_answered(
    peer: Any, load: Callable[..., list[Record]]
) -> None:
    peer.refuses = True
    records = load(50, port=peer.port, arrivals_per_s=500.0)
    assert len(records) >= 50
    errors = {record.error for record in sent(records)}
    assert errors == {'RefusedError: HTTP 503: {"detail": "too many"}'}


def test_a_generator_that_is_too_slow_leaves_out_nothing(
    peer: Any, load: Callable[..., list[Record]]
) -> None:
    """No process sends 50,000 requests a second; what it did not send is late by its own fault."""
    records = load(100, port=peer.port, arrivals_per_s=50_000.0, request_timeout_s=1.0)
    failed = [record for record in records if record.error.startswith("not sent: ")]
    assert len(failed) > 1_000
    assert all(record.lag_ms == record.latency_ms for record in failed)


def test_a_request_that_is_never_answered_is_one_without_an_answer(
    peer: Any, load: Callable[..., list[Record]]
) -> None:
    """Left out, the slowest requests of an open loop would make its latencies look better."""
    peer.answers = threading.Event()
    try:
        records = load(10, port=peer.port, arrivals_per_s=200.0, request_timeout_s=0.3)
    finally:
        peer.answers.set()
    # In the time of one request's limit some 60 more were sent.
    assert len(records) > 30
    assert all(record.failed_images == 1 for record in records)
    assert all("unanswered" in r.error or "timed out" in r.error for r in sent(records))
