"""One request that was answered, for those that tell of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple


class Request(NamedTuple):
    """One request that was answered.

    Attributes:
        method: its name.
        outcome: one of the words of `service.call_counts`.
        images: how many it had that were looked at.
        failed_images: how many of these have no scores.
        request_bytes: size of its arguments; None where it was refused before it had arrived.
        reply_bytes: size of the reply.
        began_s: when it was there as a whole, on the monotonic clock.
        took_ms: from then until its reply was ready.
        peer: the client's address.
        stages_ms: of its slowest image, stage to milliseconds in the order in which they ran.
        traceparent: the W3C trace context that the client gave, or "".
    """

    method: str
    outcome: str
    images: int
    failed_images: int
    request_bytes: int | None
    reply_bytes: int
    began_s: float
    took_ms: float
    peer: str
    stages_ms: Mapping[str, float]
    traceparent: str = ""


Teller = Callable[[Request], None]
"""Tells of a request; called by the thread of its connection, which must not wait for long."""
