"""Real servers on real sockets, in this process or in their own, and clients for them."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from thriftpy2.rpc import make_client
from thriftpy2.transport import TCyBufferedTransportFactory, TCyFramedTransportFactory

from idl import inference
from service.accepting.listener import PortListener
from service.handlers.deadline import Deadline
from service.handlers.interface import Handler, HandlerInfo, HandlerStats
from service.handlers.null import NullHandler
from service.handlers.outcomes import DeadlineExceededError, ImageFailure, InvalidImageError, Scores
from service.options.server_settings import ServerSettings
from service.server import Server
from tests.service.pictures import PICTURE
from tests.serving import ServerProcess

TIMEOUT_S = 30
NUM_CLASSES = 5


@dataclass
class ScriptedHandler:
    """Does what an image's bytes say, so that a client's request decides what happens.

    b"invalid", b"late", b"broken" and b"nan" fail in that way, b"raise" raises, b"wait..." waits
    until `release` is set, and b"best=3" scores class 3 best. Anything else scores class 0 best.
    """

    entered: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    release: threading.Event = field(default_factory=threading.Event)
    closed: bool = False
    note: str = ""
    deadlines: list[Deadline | None] = field(default_factory=list)

    def classify(
        self, images: Sequence[bytes], deadline: Deadline | None
    ) -> list[Scores | ImageFailure]:
        self.deadlines.append(deadline)
        return [self._outcome(image) for image in images]

    def _outcome(self, image: bytes) -> Scores | ImageFailure:
        image = image.removeprefix(PICTURE)
        if image == b"invalid":
            return InvalidImageError("no image at all")
        if image == b"late":
            return DeadlineExceededError("too late")
        if image == b"broken":
            return ImageFailure("secret cause")
        if image == b"raise":
            raise RuntimeError("secret cause")
        if image.startswith(b"wait"):
            self.entered.release()
            assert self.release.wait(TIMEOUT_S)
        best = int(image[5:]) if image.startswith(b"best=") else 0
        probabilities = np.full(NUM_CLASSES, 0.1, dtype=np.float32)
        probabilities[best] = np.nan if image == b"nan" else 0.6
        return Scores(probabilities, {"decode": 0.5, "infer": 2.5})

    def info(self) -> HandlerInfo:
        return HandlerInfo(
            engine="scripted",
            precision="fp32",
            model="model.onnx",
            model_sha256="ab" * 32,
            config_sha256="cd" * 32,
            num_classes=NUM_CLASSES,
            versions={"scripted": "1.2"},
            settings={"lock": "none"},
            note=self.note,
        )

    def stats(self) -> HandlerStats:
        return HandlerStats()

    def why_not_ready(self) -> str:
        return ""

    def close(self) -> None:
        self.closed = True


class RunningServer:
    """A server that serves in a thread of its own, and its port."""

    def __init__(self, server: Server, port: int) -> None:
        self.server = server
        self.port = port
        self.cut_off: int | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        self.server.serve()
        self.cut_off = self.server.drain()
        self.server.shutdown()

    def stop(self) -> None:
        self.server.stop()
        self.join()

    def join(self) -> None:
        self._thread.join(TIMEOUT_S)
        assert not self._thread.is_alive()

    def connect(self) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", self.port), timeout=TIMEOUT_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def client(self, *, framed: bool = True, service: Any = inference.InferenceService) -> Any:
        factory = TCyFramedTransportFactory() if framed else TCyBufferedTransportFactory()
        return make_client(
            service, "127.0.0.1", self.port, trans_factory=factory, timeout=TIMEOUT_S * 1000
        )


@contextmanager
def _served(handler: Handler, settings: ServerSettings) -> Iterator[RunningServer]:
    listener = PortListener(settings)
    with Server(settings, "null", lambda: handler, listener) as server:
        server.startup()
        running = RunningServer(server, listener.address[1])
        try:
            yield running
        finally:
            running.stop()


Serve = Callable[..., RunningServer]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts servers: serve(handler, **settings). They are drained at the end of the test."""
    with ExitStack() as stack:

        def start(handler: Handler | None = None, **settings: Any) -> RunningServer:
            # Handlers that wait for the test would seem slow.
            changed = replace(ServerSettings(port=0, max_queue_ms=0), **settings)
            return stack.enter_context(_served(handler or NullHandler(), changed))

        yield start


@pytest.fixture
def null_server(serve: Serve) -> RunningServer:
    return serve()


@pytest.fixture
def scripted() -> ScriptedHandler:
    return ScriptedHandler()


@pytest.fixture
def scripted_server(serve: Serve, scripted: ScriptedHandler) -> RunningServer:
    return serve(scripted)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., ServerProcess]]:
    """Starts server processes; none outlives the test."""
    started: list[ServerProcess] = []

    def start_one(*arguments: str) -> ServerProcess:
        started.append(ServerProcess(arguments, tmp_path))
        return started[-1]

    yield start_one
    for server in started:
        server.close()


class Wire:
    """Thrift's binary encoding by hand, independent of the code under test."""

    STRUCT_1 = b"\x0c\x00\x01"

    @staticmethod
    def header(name: bytes, message_type: int = 1, sequence_id: int = 7) -> bytes:
        start = struct.pack(">HHi", 0x8001, message_type, len(name))
        return start + name + struct.pack(">i", sequence_id)

    @staticmethod
    def string(number: int, value: bytes, length: int | None = None) -> bytes:
        size = len(value) if length is None else length
        return struct.pack(">bhi", 11, number, size) + value

    @classmethod
    def infer_batch(cls, data: bytes = b"\xff\xd8", sequence_id: int = 7) -> bytes:
        params = cls.string(1, b"u1") + cls.string(2, data) + b"\0"
        return cls.header(b"infer_batch", 1, sequence_id) + cls.STRUCT_1 + params + b"\0"

    @staticmethod
    def frame(message: bytes) -> bytes:
        return struct.pack(">i", len(message)) + message

    @staticmethod
    def read_all(sock: socket.socket) -> bytes:
        """Everything until the server closes."""
        chunks = []
        while chunk := sock.recv(65536):
            chunks.append(chunk)
        return b"".join(chunks)

    @classmethod
    def exchange(cls, sock: socket.socket, data: bytes) -> bytes:
        """Send, finish sending, and read everything until the server closes."""
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        return cls.read_all(sock)


@pytest.fixture
def wire() -> type[Wire]:
    return Wire
