"""How long a call may stay, and what is called for each of its images that is done."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Protocol

from service.handlers.outcomes import ClientDisconnectedError, DeadlineExceededError
from service.wire.peer import Peer


class ImageDone(Protocol):
    """Called for an image that is done before its call is."""

    def __call__(self, *, worked_on: bool) -> None:
        """Any thread may call it.

        Args:
            worked_on: whether it was classified, or found to be no image, and not dropped.
        """


@dataclass(frozen=True)
class Deadline:
    """The end of a call: its time has passed, or its client has disconnected.

    Handlers check it before they decode an image, and again before they infer.

    Attributes:
        at_s: the end of the call's stay, on the monotonic clock; infinite where it has none.
        timeout_ms: how long the stay was to be, for the client; 0 where it has no end.
        peer: the client; None where no connection is behind the call.
        image_done: called for each image of a call of several; None for no such call.
    """

    at_s: float
    timeout_ms: int
    peer: Peer | None = None
    image_done: ImageDone | None = None

    @classmethod
    def after(cls, timeout_ms: int) -> Deadline:
        """The deadline of a call that arrives now, without a connection behind it."""
        return cls(time.monotonic() + timeout_ms / 1000, timeout_ms)

    def remaining_s(self) -> float:
        """Seconds left, as many as a lock's timeout takes at most; negative when it has passed."""
        return min(self.at_s - time.monotonic(), threading.TIMEOUT_MAX)

    def failure(self) -> DeadlineExceededError:
        """What becomes of an image that was dropped or not finished."""
        if self.remaining_s() > 0:
            return ClientDisconnectedError("dropped, because its client had closed the connection")
        return DeadlineExceededError(f"not finished within timeout_ms = {self.timeout_ms}")

    def is_disconnected(self) -> bool:
        """Whether the client has gone."""
        return self.peer is not None and self.peer.is_disconnected()

    def check(self) -> None:
        """Raise DeadlineExceededError, or its subclass for a client that has disconnected."""
        if self.remaining_s() <= 0 or self.is_disconnected():
            raise self.failure()
