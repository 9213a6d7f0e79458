"""One process of the fuzzer: sends mutants over many sockets at once, from one event loop.

A mutant with whole framing must be answered, and its connection serves the next one. Of all others
the end is unknown, so that the client says by closing its sending half that nothing more
comes; the server must then close, with an answer before or without. What neither answers nor closes
in time is a hang.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

from tests.robustness import wire
from tests.robustness.colour_model import LABELS, encoded
from tests.robustness.corpus import seed_images, seed_messages
from tests.robustness.mutation import Mutant, Mutator

CHECK_EVERY = 1000
_PATIENCE_S = 0.03
"""How long to wait for an answer before saying that nothing more comes."""
_REPORT_INTERVAL_S = 0.5
_SWEEP_INTERVAL_S = 0.01
_REMEMBERED = 64
_REUSES = 200
_RECEIVE_BYTES = 64 * 1024


@dataclass(frozen=True)
class FuzzTask:
    """What one process does.

    Attributes:
        port: of the server.
        seed: decides the mutants.
        requests: how many; None for as many as fit into `duration_s`.
        duration_s: after which no mutant is sent; None for no limit.
        connections: sockets at a time.
        deadline_s: longest wait for an answer or for the close.
        failures: folder for inputs that broke a promise.
    """

    port: int
    seed: str
    requests: int | None
    duration_s: float | None
    connections: int
    deadline_s: float
    failures: Path


@dataclass
class _Slot:
    """One socket and the mutant that is under way on it."""

    sock: socket.socket
    mutant: Mutant
    sent_s: float
    answered: bytes = b""
    half_closed: bool = False
    uses: int = 0


@dataclass
class _State:
    counts: Counter[str] = field(default_factory=Counter)
    recent: deque[Mutant] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))
    failures: list[str] = field(default_factory=list)


def run_client(task: FuzzTask, pipe: Connection) -> None:
    """Send it all; `pipe` gets (counts, failures, whether that was all) now and then."""
    client = _FuzzClient(task, pipe)
    try:
        client.run()
    except (KeyboardInterrupt, BrokenPipeError):
        return


class _FuzzClient:
    def __init__(self, task: FuzzTask, pipe: Connection) -> None:
        self._task = task
        self._pipe = pipe
        images = seed_images()
        self._mutator = Mutator(task.seed, seed_messages(images), images)
        self._goods = [(label, encoded(label, 48, 36)) for label in LABELS]
        self._selector = selectors.DefaultSelector()
        self._free: list[tuple[socket.socket, int]] = []
        self._state = _State()
        self._sent = 0
        self._started_s = time.monotonic()

    def run(self) -> None:
        reported_s = swept_s = self._started_s
        while True:
            while len(self._selector.get_map()) < self._task.connections and self._goes_on():
                self._send_next()
            if not self._selector.get_map():
                break
            for key, _ in self._selector.select(_SWEEP_INTERVAL_S):
                self._receive(key.data)
            now_s = time.monotonic()
            if now_s - swept_s >= _SWEEP_INTERVAL_S:
                swept_s = now_s
                self._sweep(now_s)
            if now_s - reported_s >= _REPORT_INTERVAL_S:
                reported_s = now_s
                self._pipe.send((dict(self._state.counts), self._state.failures, False))
        self._check_good()
        for sock, _ in self._free:
            sock.close()
        self._pipe.send((dict(self._state.counts), self._state.failures, True))

    def _goes_on(self) -> bool:
        task = self._task
        if self._state.failures or (task.requests is not None and self._sent >= task.requests):
            return False
        return task.duration_s is None or time.monotonic() - self._started_s < task.duration_s

    def _send_next(self) -> None:
        if self._sent and self._sent % CHECK_EVERY == 0:
            self._check_good()
        mutant = self._mutator.next()
        self._state.recent.append(mutant)
        self._sent += 1
        self._state.counts["requests"] += 1
        self._state.counts["image requests" if mutant.whole else "byte requests"] += 1
        uses = 0
        try:
            if mutant.whole and self._free:
                sock, uses = self._free.pop()
            else:
                sock = wire.connect(self._task.port, self._task.deadline_s)
                sock.setblocking(False)
            sock.send(mutant.data)
        except OSError as error:
            self._fail(f"no connection takes a request: {error}", self._state.recent)
            return
        slot = _Slot(sock, mutant, time.monotonic(), uses=uses + 1)
        self._selector.register(sock, selectors.EVENT_READ, slot)

    def _receive(self, slot: _Slot) -> None:
        try:
            chunk = slot.sock.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self._end(slot, "reset")
            return
        if not chunk:
            self._end(slot, "answered, closed" if slot.answered else "closed")
            return
        slot.answered += chunk
        if not slot.mutant.whole:
            self._close_half(slot)
            return
        reply = self._decoded(slot)
        if reply is not None:
            self._judge(slot, reply)

    def _decoded(self, slot: _Slot) -> wire.Reply | None:
        data = slot.answered[4:] if slot.mutant.framed else slot.answered
        try:
            return wire.decode(data)
        except wire.IncompleteError:
            return None
        except wire.WireError as error:
            self._fail(f"an answer that is no message: {error}", [slot.mutant])
            self._end(slot, "broken answer")
            return None

    def _judge(self, slot: _Slot, reply: wire.Reply) -> None:
        """The answer to valid framing with bad images: results, or a declared exception."""
        if reply.message_type != wire.REPLY or len(reply.fields) != 1:
            self._fail(f"an undeclared answer to bad image bytes: {reply}", [slot.mutant])
        elif reply.name == b"infer_images" and 0 in reply.fields:
            uuids = [result.get(3) for result in reply.fields[0]]
            if uuids != [b"%d" % number for number in range(len(uuids))]:
                self._fail(f"results out of order: {uuids}", [slot.mutant])
        for text in _internal_errors(reply):
            self._fail(f"an internal error for bad image bytes: {text}", [slot.mutant])
        self._state.counts["answered"] += 1
        self._state.counts[_outcome(reply)] += 1
        self._selector.unregister(slot.sock)
        if slot.uses < _REUSES:
            self._free.append((slot.sock, slot.uses))
        else:
            slot.sock.close()

    def _sweep(self, now_s: float) -> None:
        for key in list(self._selector.get_map().values()):
            slot: _Slot = key.data
            waited_s = now_s - slot.sent_s
            if waited_s > self._task.deadline_s:
                self._fail(f"neither answer nor close within {waited_s:.1f} s", [slot.mutant])
                self._end(slot, "hang")
            elif waited_s > _PATIENCE_S and not slot.mutant.whole:
                self._close_half(slot)

    def _close_half(self, slot: _Slot) -> None:
        if slot.half_closed:
            return
        slot.half_closed = True
        try:
            slot.sock.shutdown(socket.SHUT_WR)
        except OSError:
            return  # the server was faster; the next read tells

    def _end(self, slot: _Slot, outcome: str) -> None:
        if slot.mutant.whole and outcome != "hang":
            self._fail(f"valid framing with image bytes was {outcome}", [slot.mutant])
        self._selector.unregister(slot.sock)
        slot.sock.close()
        self._state.counts[outcome] += 1

    def _check_good(self) -> None:
        """A known image must get its label; framed and unframed in turn."""
        number = self._state.counts["good requests"]
        label, data = self._goods[number % len(self._goods)]
        message = wire.infer_batch(number, b"good", data)
        self._state.counts["good requests"] += 1
        try:
            reply = wire.exchange(
                self._task.port, message, self._task.deadline_s, framed=number % 2 == 0
            )
        except (OSError, EOFError, wire.WireError) as error:
            self._fail(f"a good request failed: {type(error).__name__}: {error}")
            return
        found = reply.fields.get(0, {}).get(1) if reply.message_type == wire.REPLY else reply
        if found != label.encode() or reply.sequence_id != number:
            self._fail(f"a good request got {found!r} instead of {label!r}")

    def _fail(self, what: str, suspects: Iterable[Mutant] | None = None) -> None:
        """Remember a broken promise, with the inputs that may be behind it."""
        number = len(self._state.failures)
        self._state.failures.append(what)
        self._task.failures.mkdir(parents=True, exist_ok=True)
        for index, mutant in enumerate(self._state.recent if suspects is None else suspects):
            name = f"{self._task.seed}-{number}-{index}.bin"
            (self._task.failures / name).write_bytes(mutant.data)


def _internal_errors(reply: wire.Reply) -> list[str]:
    """Messages of the internal errors in an answer."""
    if reply.message_type != wire.REPLY:
        return []
    if 0 not in reply.fields:
        number, error = next(iter(reply.fields.items()))
        declared = 5 if reply.name == b"infer_batch" else 3
        return [str(error)] if number == declared else []
    if reply.name != b"infer_images":
        return []
    return [str(result[6]) for result in reply.fields[0] if 6 in result and result[6].get(1) == 4]


def _outcome(reply: wire.Reply) -> str:
    """In which way bad image bytes were answered."""
    if reply.message_type != wire.REPLY:
        return "application exception"
    if 0 not in reply.fields:
        return "declared exception"
    if reply.name == b"infer_images" and any(6 in result for result in reply.fields[0]):
        return "an image's own error"
    return "classified all the same"
