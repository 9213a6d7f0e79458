"""Clients that do everything right, and check everything that they get back.

Each request has check values of its own: a uuid that no other request has, and images of which the
label is known. A reply must come once, to the request that it belongs to.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from tests.robustness import wire

INVALID_IMAGE, OVERLOADED, DEADLINE, INTERNAL = 1, 2, 3, 4
"""The contract's ErrorCode."""

RIGHT, REFUSED, LATE, FAILED, BAD = "right", "overloaded", "deadline", "internal", "bad image"
LOST, HUNG, WRONG = "connection lost", "no answer", "WRONG"
OUTCOMES = (RIGHT, BAD, REFUSED, LATE, FAILED, LOST, HUNG, WRONG)
IMAGE_OUTCOMES = {INVALID_IMAGE: BAD, OVERLOADED: REFUSED, DEADLINE: LATE, INTERNAL: FAILED}
# infer_images declares these by field: InvalidRequest, Overloaded, InternalError.
EXCEPTION_OUTCOMES = {1: WRONG, 2: REFUSED, 3: FAILED, 4: LATE}
_RECONNECT_S = 0.02


@dataclass(frozen=True)
class KnownImage:
    """An image file and what the server has to say about it.

    Attributes:
        data: the file's bytes.
        label: its label; None where it is no image and has to be refused.
    """

    data: bytes
    label: str | None


def outcomes_of(
    reply: wire.Reply, sequence_id: int, expected: Sequence[tuple[bytes, str | None]]
) -> tuple[list[str], str]:
    """Judge one reply of `infer_images`.

    Args:
        reply: what came.
        sequence_id: of the call.
        expected: uuid and label of every image of the call.

    Returns:
        An outcome for every image, and what is wrong where one is WRONG.
    """
    n = len(expected)
    if reply.sequence_id != sequence_id:
        return [WRONG] * n, f"the reply to call {reply.sequence_id} came to call {sequence_id}"
    if reply.message_type != wire.REPLY:
        return [WRONG] * n, f"undeclared: {reply.fields}"
    if 0 not in reply.fields:
        number = next(iter(reply.fields), 0)
        outcome = EXCEPTION_OUTCOMES.get(number, WRONG)
        return [outcome] * n, f"exception {reply.fields}" if outcome == WRONG else ""
    results = reply.fields[0]
    if len(results) != n:
        return [WRONG] * n, f"{len(results)} results for {n} images"
    outcomes, wrong = [], ""
    for result, (uuid, label) in zip(results, expected, strict=True):
        outcome = _outcome(result, uuid, label)
        if outcome == WRONG:
            wrong = f"expected {label!r} for {uuid!r}, got {result}"
        outcomes.append(outcome)
    return outcomes, wrong


def _outcome(result: dict[int, Any], uuid: bytes, label: str | None) -> str:
    if result.get(3) != uuid:
        return WRONG
    if 6 in result:
        outcome = IMAGE_OUTCOMES.get(result[6].get(1), WRONG)
        return WRONG if outcome == BAD and label is not None else outcome
    return RIGHT if label is not None and result.get(1) == label.encode() else WRONG


@dataclass(frozen=True)
class Habits:
    """How a client behaves.

    Attributes:
        images: what it sends, at random.
        most_images: in one call.
        least_images: in one call.
        timeout_s: longest wait for a reply.
        deadline_share: of its calls that carry a deadline.
        deadline_ms: that deadline.
        calls_per_connection: mean number after which it connects again; None for never.
        retry_s: how long it waits after a call that was refused.
    """

    images: Sequence[KnownImage]
    most_images: int = 3
    least_images: int = 1
    timeout_s: float = 15.0
    deadline_share: float = 0.0
    deadline_ms: int = 50
    calls_per_connection: int | None = None
    retry_s: float = 0.0


class CheckingClients:
    """Closed-loop clients, a thread each, for the length of the context.

    Args:
        port: of the server, or of what stands before it.
        clients: how many.
        habits: of each.
        seed: decides what they send.
        pause_s: between two calls of a client.

    Attributes:
        counts: outcomes, one an image; connections lost and calls without answer, one a call.
        wrongs: what was wrong, the first few.
        right_ms: latencies of calls of which every image was answered rightly.
    """

    def __init__(
        self, port: int, clients: int, habits: Habits, seed: int, pause_s: float = 0.0
    ) -> None:
        self._port = port
        self._habits = habits
        self._pause_s = pause_s
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self.counts: Counter[str] = Counter()
        self.wrongs: list[str] = []
        self.calls = 0
        self.right_ms: list[float] = []
        self._threads = [
            threading.Thread(target=self._run, args=(f"{seed}-{number}",), daemon=True)
            for number in range(clients)
        ]

    def _run(self, name: str) -> None:
        rng = random.Random(name)  # noqa: S311 (guards no secret)
        calls = 0
        while not self._stopped.is_set():
            try:
                with wire.connect(self._port, self._habits.timeout_s) as sock:
                    while not self._stopped.is_set():
                        calls += 1
                        self._call(sock, rng, name, calls)
                        if self._pause_s:
                            self._stopped.wait(self._pause_s)
                        every = self._habits.calls_per_connection
                        if every is not None and rng.random() < 1 / every:
                            break
            except TimeoutError:
                self._count([HUNG], "")
            except wire.WireError as error:
                self._count([WRONG], str(error))
            except (OSError, EOFError):
                self._count([LOST], "")
                self._stopped.wait(_RECONNECT_S)

    def _call(self, sock: Any, rng: random.Random, name: str, number: int) -> None:
        habits = self._habits
        chosen = [
            rng.choice(habits.images)
            for _ in range(rng.randint(habits.least_images, habits.most_images))
        ]
        uuids = [f"{name}-{number}-{index}".encode() for index in range(len(chosen))]
        timeout_ms = habits.deadline_ms if rng.random() < habits.deadline_share else None
        pairs = [(uuid, image.data) for uuid, image in zip(uuids, chosen, strict=True)]
        message = wire.frame(wire.infer_images(number, pairs, timeout_ms=timeout_ms))
        started_s = time.perf_counter()
        sock.sendall(message)
        # Whatever follows the reply, such as a second one, is WRONG.
        reply = wire.receive(sock, framed=True)
        took_ms = (time.perf_counter() - started_s) * 1000
        expected = [(uuid, image.label) for uuid, image in zip(uuids, chosen, strict=True)]
        outcomes, wrong = outcomes_of(reply, number, expected)
        self._count(outcomes, wrong)
        if set(outcomes) == {RIGHT}:
            self.right_ms.append(took_ms)
        elif REFUSED in outcomes and habits.retry_s:
            self._stopped.wait(habits.retry_s)

    def _count(self, outcomes: Sequence[str], wrong: str) -> None:
        with self._lock:
            self.calls += 1
            self.counts.update(outcomes)
            if wrong and len(self.wrongs) < 20:
                self.wrongs.append(wrong)

    def __enter__(self) -> CheckingClients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()


def wait_until(condition: Callable[[], bool], timeout_s: float, interval_s: float = 0.05) -> bool:
    """Whether the condition came true in that time."""
    end_s = time.monotonic() + timeout_s
    while not (done := condition()) and time.monotonic() < end_s:
        time.sleep(interval_s)
    return done
