"""A cheap load generator: one event loop, closed or open, that checks every answer.

It shares the machine with the server that it measures, so that a request costs it one send, one
receive and little more.
"""

from __future__ import annotations

import random
import selectors
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile

from loadtest.load.arrivals import poisson
from tests.robustness import wire
from tests.robustness.checking_clients import HUNG, LOST, WRONG, KnownImage, outcomes_of

_SEND_BUFFER_BYTES = 4 * 2**20
_RECEIVE_BYTES = 64 * 1024
_ANSWER_TIMEOUT_S = 30.0
_LONGEST_WAIT_S = 0.2
_CONNECTIONS = 256


@dataclass(frozen=True)
class Answer:
    """What became of one request.

    Attributes:
        due_s: when it was to be sent, from the window's start.
        latency_s: from then until its answer had come whole.
        outcome: as `outcomes_of` names it.
        lag_s: how much later than due it was sent: the generator's share of the latency.
    """

    due_s: float
    latency_s: float
    outcome: str
    lag_s: float = 0.0


@dataclass
class _Call:
    due_s: float
    lag_s: float
    sequence_id: int
    uuid: bytes
    label: str | None
    answered: bytes = b""


class LoadLoop:
    """Sends single images over connections that it keeps from window to window.

    Args:
        port: of the server.
        images: what to send, in turn.
        seed: decides the arrivals of an open loop.
        connections: how many there are from the start; a closed loop needs one a client.
    """

    def __init__(
        self,
        port: int,
        images: Sequence[KnownImage],
        seed: int,
        connections: int = _CONNECTIONS,
    ) -> None:
        self._port = port
        self._images = images
        self._random = random.Random(seed)  # noqa: S311 (guards no secret)
        self._selector = selectors.DefaultSelector()
        # Enough beforehand: connecting waits for the server, and would hold the loop up.
        self._free = [self._connect() for _ in range(connections)]
        self._calls: dict[socket.socket, _Call] = {}
        self._number = 0
        self._started_s = 0.0
        self.wrongs: list[str] = []
        self._answers: list[Answer] = []

    def closed(self, length_s: float, clients: int) -> list[Answer]:
        """Every client sends its next request when it has the answer to the last one."""

        def due(now_s: float) -> list[float]:
            return [now_s] * (clients - len(self._calls)) if now_s < length_s else []

        def next_due() -> float | None:
            # Answers that came while others were sent leave their clients without a request.
            return 0.0 if due(self._now_s()) else None

        return self._run(length_s, due, next_due)

    def open(self, length_s: float, rate_per_s: float) -> list[Answer]:
        """Requests come at random times (Poisson), whatever becomes of those before them."""
        times = poisson(rate_per_s, 0.0, repr(self._random.random()))
        waiting = [*takewhile(lambda at_s: at_s < length_s, times)][::-1]

        def due(now_s: float) -> list[float]:
            times = []
            while waiting and waiting[-1] <= now_s:
                times.append(waiting.pop())
            return times

        return self._run(length_s, due, lambda: waiting[-1] if waiting else None)

    def _run(
        self,
        length_s: float,
        due: Callable[[float], list[float]],
        next_due: Callable[[], float | None],
    ) -> list[Answer]:
        self._answers = []
        self._started_s = time.perf_counter()
        while True:
            now_s = self._now_s()
            for at_s in due(now_s):
                self._send(at_s)
                # Answers come meanwhile, and their connections are free again: without them a loop
                # that has fallen behind would open one for each request.
                self._receive_all(0.0)
            if now_s >= length_s and not self._calls:
                return self._answers
            if now_s >= length_s + _ANSWER_TIMEOUT_S:
                for sock in list(self._calls):
                    self._end(sock, HUNG, keep=False)
                return self._answers
            next_s = next_due()
            wait_s = _LONGEST_WAIT_S if next_s is None else max(0.0, next_s - now_s)
            self._receive_all(min(wait_s, _LONGEST_WAIT_S))

    def _now_s(self) -> float:
        return time.perf_counter() - self._started_s

    def _receive_all(self, wait_s: float) -> None:
        for key, _ in self._selector.select(wait_s):
            assert isinstance(key.fileobj, socket.socket)
            self._receive(key.fileobj)

    def _send(self, due_s: float) -> None:
        self._number += 1
        image = self._images[self._number % len(self._images)]
        uuid = b"request-%d" % self._number
        message = wire.frame(wire.infer_images(self._number, [(uuid, image.data)]))
        sock = self._open_connection()
        self._calls[sock] = _Call(due_s, self._now_s() - due_s, self._number, uuid, image.label)
        self._selector.register(sock, selectors.EVENT_READ)
        try:
            sent = sock.send(message)
        except OSError:
            sent = 0
        if sent < len(message):
            self._end(sock, LOST, keep=False)

    def _open_connection(self) -> socket.socket:
        """A free one that the server has not closed, as it closes those of its reserve."""
        while self._free:
            sock = self._free.pop()
            try:
                sock.recv(1, socket.MSG_PEEK)
            except BlockingIOError:
                return sock
            except OSError:
                pass
            sock.close()
        return self._connect()

    def _connect(self) -> socket.socket:
        sock = wire.connect(self._port, _ANSWER_TIMEOUT_S)
        # A whole request fits, so that sending never has to wait.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        sock.setblocking(False)
        return sock

    def _receive(self, sock: socket.socket) -> None:
        call = self._calls[sock]
        try:
            chunk = sock.recv(_RECEIVE_BYTES)
        except OSError:
            chunk = b""
        if not chunk:
            self._end(sock, LOST, keep=False)
            return
        call.answered += chunk
        size = 4 + int.from_bytes(call.answered[:4], "big")
        if len(call.answered) < max(size, 5):
            return
        if len(call.answered) > size:
            self.wrongs.append(f"{len(call.answered) - size} bytes follow the reply")
            self._end(sock, WRONG, keep=False)
            return
        reply = wire.decode(call.answered[4:])
        (outcome,), wrong = outcomes_of(reply, call.sequence_id, [(call.uuid, call.label)])
        if wrong:
            self.wrongs.append(wrong)
        self._end(sock, outcome, keep=True)

    def _end(self, sock: socket.socket, outcome: str, *, keep: bool) -> None:
        call = self._calls.pop(sock)
        self._selector.unregister(sock)
        latency_s = self._now_s() - call.due_s
        self._answers.append(Answer(call.due_s, latency_s, outcome, call.lag_s))
        if keep:
            self._free.append(sock)
        else:
            sock.close()

    def close(self) -> None:
        """Close all connections."""
        for sock in self._free:
            sock.close()
        self._selector.close()
