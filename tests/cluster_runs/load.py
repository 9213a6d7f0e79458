"""Closed-loop clients of several front ends, which try again what was lost, and check all they get.

Each keeps a connection to one of the front ends, and goes to the next one where it breaks, as
clients behind a load balancer do.
"""

from __future__ import annotations

import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.cluster_runs.check_values import CheckedImage, random_image
from tests.robustness import wire
from tests.robustness.checking_clients import (
    EXCEPTION_OUTCOMES,
    HUNG,
    IMAGE_OUTCOMES,
    LOST,
    RIGHT,
    WRONG,
)
from tests.robustness.colour_model import LABELS

UNREACHABLE = "no connection"
"""The outcome of an attempt that was never sent."""
CALL_TIMEOUT_MS = 2000
"""How long a call may stay in the server, unless it is said otherwise."""

_CONNECT_S = 2.0
_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 1.0
_KEPT_MISTAKES = 20


@dataclass(frozen=True)
class Attempt:
    """One time that a call was sent, or was to be.

    Attributes:
        call: client and number of the call, which all attempts of it share.
        port: of the front end.
        began_s: on the monotonic clock.
        ended_s: when its outcome was known.
        outcome: RIGHT where every image has its right answer.
    """

    call: str
    port: int
    began_s: float
    ended_s: float
    outcome: str


class ClusterLoad:
    """The clients, for the length of the context.

    Args:
        ports: of the front ends on 127.0.0.1.
        clients: how many.
        seed: decides what they send.
        images: of each call.
        timeout_ms: of each call: how long it may stay in the server.
        give_up_s: for how long a call is tried.

    Attributes:
        attempts: in the order in which they ended.
        mistakes: what was wrong, the first few.
    """

    def __init__(
        self,
        ports: Sequence[int],
        clients: int,
        seed: int,
        *,
        images: int = 1,
        timeout_ms: int = CALL_TIMEOUT_MS,
        give_up_s: float = 60.0,
    ) -> None:
        self._ports = ports
        self._images = images
        self._timeout_ms = timeout_ms
        self._give_up_s = give_up_s
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self.attempts: list[Attempt] = []
        self.mistakes: list[str] = []
        self._threads = [
            threading.Thread(target=self._run, args=(number, f"{seed}-{number}"), daemon=True)
            for number in range(clients)
        ]

    def _run(self, number: int, name: str) -> None:
        rng = random.Random(name)  # noqa: S311 (guards no secret)
        client = _Client(self._ports, number, self._timeout_ms)
        calls = 0
        while not self._stopped.is_set():
            calls += 1
            images = [random_image(rng) for _ in range(self._images)]
            self._answer(client, f"{name}-{calls}", calls, images)
        client.close()

    def _answer(
        self, client: _Client, call: str, sequence_id: int, images: Sequence[CheckedImage]
    ) -> None:
        """Try until it is answered rightly, or wrongly, or its time is over."""
        end_s = time.monotonic() + self._give_up_s
        pause_s = _PAUSE_S
        while True:
            began_s = time.monotonic()
            port = client.port
            outcome, mistake = client.try_once(call, sequence_id, images)
            ended_s = time.monotonic()
            with self._lock:
                self.attempts.append(Attempt(call, port, began_s, ended_s, outcome))
                if mistake and len(self.mistakes) < _KEPT_MISTAKES:
                    self.mistakes.append(mistake)
            if outcome in (RIGHT, WRONG) or ended_s > end_s:
                return
            # Also after the end: what was lost is to be answered before the clients are judged.
            threading.Event().wait(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    @property
    def counts(self) -> Counter[str]:
        """Attempts by outcome."""
        return Counter(attempt.outcome for attempt in self.attempts)

    def __enter__(self) -> ClusterLoad:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()


class _Client:
    """A connection to one of the front ends."""

    def __init__(self, ports: Sequence[int], number: int, timeout_ms: int) -> None:
        self._ports = ports
        self._number = number
        self._timeout_ms = timeout_ms
        # Longer than any declared answer takes: what is later is no answer.
        self._timeout_s = 2 * timeout_ms / 1000 + 3.0
        self._socket: socket.socket | None = None

    @property
    def port(self) -> int:
        """Of the front end that the next attempt goes to."""
        return self._ports[self._number % len(self._ports)]

    def try_once(
        self, call: str, sequence_id: int, images: Sequence[CheckedImage]
    ) -> tuple[str, str]:
        """The outcome of a call, and what was wrong with its answer."""
        if self._socket is None:
            try:
                self._socket = wire.connect(self.port, _CONNECT_S)
                self._socket.settimeout(self._timeout_s)
            except OSError:
                self._number += 1
                return UNREACHABLE, ""
        uuids = [f"{call}-{index}".encode() for index in range(len(images))]
        pairs = [(uuid, image.data) for uuid, image in zip(uuids, images, strict=True)]
        message = wire.frame(
            wire.infer_images(sequence_id, pairs, top_k=len(LABELS), timeout_ms=self._timeout_ms)
        )
        try:
            self._socket.sendall(message)
            # Whatever follows the reply, such as a second one, is a WireError.
            reply = wire.receive(self._socket, framed=True)
        except TimeoutError:
            return self._broken(HUNG), ""
        except (OSError, EOFError):
            return self._broken(LOST), ""
        except wire.WireError as error:
            return self._broken(WRONG), str(error)
        return _judged(reply, sequence_id, uuids, images)

    def close(self) -> None:
        """Close the connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _broken(self, outcome: str) -> str:
        self.close()
        self._number += 1
        return outcome


def _judged(
    reply: wire.Reply, sequence_id: int, uuids: Sequence[bytes], images: Sequence[CheckedImage]
) -> tuple[str, str]:
    if reply.sequence_id != sequence_id:
        return WRONG, f"the reply to call {reply.sequence_id} came to call {sequence_id}"
    if reply.message_type != wire.REPLY:
        return WRONG, f"undeclared: {reply.fields}"
    if 0 not in reply.fields:
        outcome = EXCEPTION_OUTCOMES.get(next(iter(reply.fields), 0), WRONG)
        return outcome, f"exception {reply.fields}" if outcome == WRONG else ""
    results: list[dict[int, Any]] = reply.fields[0]
    if len(results) != len(images):
        return WRONG, f"{len(results)} results for {len(images)} images"
    outcomes = []
    for result, uuid, image in zip(results, uuids, images, strict=True):
        if 6 in result:
            outcomes.append(IMAGE_OUTCOMES.get(result[6].get(1), WRONG))
        elif mistake := image.mistake(result, uuid):
            return WRONG, mistake
    return next(iter(outcomes), RIGHT), ""
