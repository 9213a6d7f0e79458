"""The replicas as a front end sees them: how much each has to do, and which one is next."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from cluster.gathering import Gathering
from cluster.hop import HopConnection
from cluster.replica_entry import ReplicaEntry

_log = logging.getLogger(__name__)

# Of more replicas than these so many random ones are looked at: looking at all of a thousand takes
# longer than a call's whole hop. The best of two would not do: where a tenth of them is twice as
# slow, its TP99 is a third longer than that of the best of all (docs/scaling.md).
_MOST_LOOKED_AT = 32
# How long a replica that broke a connection is passed over, unless there is no other; twice as
# long each time.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.25, 8.0
# One that has had calls for so long, and answered none, may hang: it is passed over, too, until it
# answers. Where a model takes as long, all are, and none is.
_SILENT_S = 1.0


@dataclass
class Replica:
    """A replica, and what this front end has under way there.

    Attributes:
        entry: what it tells of itself.
        outstanding: images that were sent there and are not answered.
        calls: how many have been answered.
        gathering: how calls get there.
    """

    entry: ReplicaEntry
    outstanding: int = 0
    calls: int = 0
    gathering: Gathering = field(init=False)
    _idle: deque[HopConnection] = field(default_factory=deque)
    _is_gone: bool = False
    _pause_s: float = 0.0
    _avoided_until_s: float = 0.0
    # Since when it has had calls and given no answer.
    _asked_s: float = 0.0

    def __post_init__(self) -> None:
        self.gathering = Gathering(self)

    def connection(self) -> HopConnection:
        """A kept connection, or a fresh one; HopError where there is none."""
        try:
            return self._idle.pop()
        except IndexError:
            return HopConnection(self.entry.host, self.entry.port)

    def give_back(self, connection: HopConnection) -> None:
        """Keep a connection that can carry another call, as long as the replica is there."""
        if not connection.is_sound:
            connection.close()
            return
        # In this order, and the other way round in `gone`: none is left open.
        self._idle.append(connection)
        if self._is_gone:
            self.close()

    def asked(self, images: int, now_s: float) -> None:
        """A call is given to it."""
        if not self.outstanding:
            self._asked_s = now_s
        self.outstanding += images

    def answered(self) -> None:
        """A call has had its reply."""
        self.calls += 1
        self._pause_s = self._avoided_until_s = 0.0
        self._asked_s = time.monotonic()

    def broke(self) -> None:
        """A connection to it broke: pass it over for a while."""
        self._pause_s = min(max(_FIRST_PAUSE_S, 2 * self._pause_s), _LONGEST_PAUSE_S)
        self._avoided_until_s = time.monotonic() + self._pause_s
        self.close()

    def is_avoided(self, now_s: float) -> bool:
        """Whether to take another one, if there is one."""
        is_silent = self.outstanding > 0 and now_s > self._asked_s + _SILENT_S
        return is_silent or bool(self.entry.why_not_ready) or now_s < self._avoided_until_s

    def gone(self) -> None:
        """It is there no more: each connection is closed once it carries no call."""
        self._is_gone = True
        self.close()

    def close(self) -> None:
        """Close the connections that carry no call."""
        while True:
            try:
                self._idle.pop().close()
            except IndexError:
                return


class Replicas:
    """Chooses a replica for each call: that with the fewest images under way. For all threads.

    Attributes:
        failure: why no replica can start, in one line; "" while none has failed to.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._by_name: dict[str, Replica] = {}
        self.failure = ""

    def update(self, entries: Iterable[ReplicaEntry]) -> None:
        """These are all replicas that there are now."""
        told = {entry.name: entry for entry in entries}
        with self._changed:
            gone = [self._by_name.pop(name) for name in self._by_name.keys() - told.keys()]
            for name, entry in told.items():
                if name in self._by_name:
                    self._by_name[name].entry = entry
                else:
                    self._by_name[name] = Replica(entry)
                    _log.info("replica %s is there: %s", name, entry.place)
            self._changed.notify_all()
        for replica in gone:
            _log.info("replica %s is gone", replica.entry.name)
            replica.gone()

    def failed(self, why: str) -> None:
        """No replica can start, for a reason that is the settings'."""
        with self._changed:
            self.failure = why
            self._changed.notify_all()

    def all(self) -> list[Replica]:
        """Those that there are, by name."""
        with self._changed:
            return [self._by_name[name] for name in sorted(self._by_name)]

    def wait_for(self, count: int, timeout_s: float) -> bool:
        """Whether so many are there and ready within that time; at once where `failure` is set."""

        def enough() -> bool:
            ready = sum(not one.entry.why_not_ready for one in self._by_name.values())
            return ready >= count

        with self._changed:
            self._changed.wait_for(lambda: self.failure or enough(), timeout_s)
            return enough()

    def take(
        self, images: int, without: Collection[str] = (), patience_s: float = 0.0
    ) -> Replica | None:
        """The replica for a call, which counts as its load until `release`.

        Args:
            images: of the call.
            without: names of those that are not to have it.
            patience_s: how long to wait for one where there is none.

        Returns:
            None where there is still none.
        """
        with self._changed:
            if patience_s > 0:
                self._changed.wait_for(lambda: self._by_name.keys() - set(without), patience_s)
            now_s = time.monotonic()
            replica = self._best(without, now_s)
            if replica is not None:
                replica.asked(images, now_s)
            return replica

    def release(self, replica: Replica, images: int) -> None:
        """A call that was given to this replica is over."""
        with self._changed:
            replica.outstanding -= images

    def close(self) -> None:
        """Close all connections that carry no call."""
        for replica in self.all():
            replica.close()

    def _best(self, without: Collection[str], now_s: float) -> Replica | None:
        there = list(self._by_name.values())
        if len(there) > _MOST_LOOKED_AT:
            # Most are as good as they look; where these are not, all are looked at.
            some = random.sample(there, _MOST_LOOKED_AT)
            best = _least(some, without, now_s)
            if best is not None and not best.is_avoided(now_s):
                return best
        return _least(there, without, now_s)


def _least(replicas: list[Replica], without: Collection[str], now_s: float) -> Replica | None:
    """That with the fewest images under way, and of those the one with the fewest calls so far."""
    allowed = [one for one in replicas if one.entry.name not in without] if without else replicas
    return min(
        allowed,
        key=lambda one: (one.is_avoided(now_s), one.outstanding, one.calls),
        default=None,
    )
