"""The calls of one front end to one replica: alone, or several in a message where many come."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from typing import Any

from cluster.gathered_message import Connections, GatheredMessage, NotGatheredError, WaitingCall
from cluster.gathered_method import EACH, MOST_BYTES, MOST_CALLS
from cluster.hop import HopTimeoutError
from service.wire.peer import Peer

MOST_IMAGES = 4
"""A call of more images goes alone: its message is long as it is."""

FEW_IMAGES = 4
"""With so few under way on a replica, its calls go alone: gathering them saves nothing."""

_MOST_BYTES_EACH = 128 * 1024
# Where fewer come meanwhile, letting others come gains less than it delays; that is tried again
# every so many messages.
_ENOUGH_CALLS, _MOST_WITHOUT_MOMENT, _NEWEST_COUNTS = 2.0, 15, 0.25
# For a replica that takes no gathered calls.
_PAUSE_S = 10.0


class Gathering:
    """Sends calls to a replica, those that come within a moment together. For all threads.

    A call that finds nobody about to send lets the other threads run for a moment, and sends what
    they have for the replica, too. Where few calls are under way it should go at once, and alone.

    Args:
        replica: the connections to it.
    """

    def __init__(self, replica: Connections) -> None:
        self._replica = replica
        self._lock = threading.Lock()
        # The first one's thread is about to send.
        self._pending: list[WaitingCall] = []
        self._alone_until_s = 0.0
        # How many calls left together where others were let come; and how often, since, none were.
        self._mean_calls = float(MOST_CALLS)
        self._without_moment = 0

    @property
    def pending(self) -> int:
        """How many calls leave with the next messages."""
        return len(self._pending)

    def call(self, pieces: Sequence[bytes], until_s: float, peer: Peer | None) -> Any:
        """The struct of the result of infer_images.

        Args:
            pieces: the arguments.
            until_s: when to give up, on the monotonic clock.
            peer: the client that the call is for; None where there is none.

        Raises:
            HopError, HopTimeoutError, ClientGoneError, TApplicationException: as from
                `HopConnection.call`.
        """
        own = WaitingCall(pieces, until_s, peer)
        if own.length <= _MOST_BYTES_EACH and time.monotonic() >= self._alone_until_s:
            with self._lock:
                own.leads = not self._pending
                self._pending.append(own)
            try:
                if (message := self._message(own)) is not None:
                    return message.result(own)
            except NotGatheredError:
                self._alone_until_s = time.monotonic() + _PAUSE_S
        return self.call_alone(pieces, until_s, peer)

    def call_alone(self, pieces: Sequence[bytes], until_s: float, peer: Peer | None) -> Any:
        """The same, at once and in a message of its own."""
        connection = self._replica.connection()
        try:
            return connection.call(EACH, pieces, until_s, peer)
        finally:
            self._replica.give_back(connection)

    def _message(self, own: WaitingCall) -> GatheredMessage | None:
        """The message in which a call is on its way; None where no other has come to join it."""
        if not own.leads and not own.wait():
            with self._lock:
                if own.message is None and not own.leads:
                    self._pending.remove(own)
                    raise HopTimeoutError
        if own.message is not None:
            return own.message
        has_moment = (
            self._mean_calls > _ENOUGH_CALLS or self._without_moment >= _MOST_WITHOUT_MOMENT
        )
        if has_moment:
            _let_others_come()
        with self._lock:
            calls = self._taken()
            if has_moment:
                self._without_moment = 0
                self._mean_calls += (len(calls) - self._mean_calls) * _NEWEST_COUNTS
            else:
                self._without_moment += 1
            message = GatheredMessage(calls, self._replica) if len(calls) > 1 else None
            if self._pending:
                self._pending[0].leads = True
                self._pending[0].woken.release()
        if message is not None:
            message.send()
        return message

    def _taken(self) -> list[WaitingCall]:
        """The calls that leave now, that of this thread and those that came next."""
        count = total_bytes = 0
        for call in self._pending[:MOST_CALLS]:
            total_bytes += call.length
            if count and total_bytes > MOST_BYTES:
                break
            count += 1
        taken = self._pending[:count]
        del self._pending[:count]
        return taken


def _let_others_come() -> None:
    """Let the threads run that are about to call, and whatever else waits for this core."""
    os.sched_yield()
