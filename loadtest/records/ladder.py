"""How much a server serves within a limit of the TP99, from windows at a few numbers of clients.

The windows are rungs of a ladder: with more clients both throughput and TP99 grow. Between the last
rung that holds the limit and the first that does not, the throughput at the limit is interpolated,
so that two settings can be told apart that hold it with equally many clients.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from loadtest.records.run import Window
from loadtest.records.service_level import tp99_ms

# How much a TP99 beyond the limit at the lowest rung counts, in logarithms, beside throughput.
_BEYOND = 2.0


@dataclass(frozen=True)
class Rung:
    """One window of a ladder.

    Attributes:
        clients: closed-loop clients.
        images_per_s: images with a right answer a second.
        tp99_ms: of all requests; infinite where too many have no right answer.
    """

    clients: int
    images_per_s: float
    tp99_ms: float

    @classmethod
    def of(cls, window: Window, request_batch: int) -> Rung:
        """The rung of a window with requests of so many images."""
        right = sum(request_batch - record.failed_images for record in window.records)
        return cls(window.clients or 1, right / window.length_s, tp99_ms(window))


@dataclass(frozen=True)
class Ladder:
    """The rungs of one server, by ascending numbers of clients, at least one.

    Attributes:
        rungs: what was measured.
        slo_ms: the limit.
    """

    rungs: Sequence[Rung]
    slo_ms: float

    @property
    def held(self) -> list[Rung]:
        """The rungs below the first one that does not hold the limit."""
        count = next(
            (i for i, rung in enumerate(self.rungs) if rung.tp99_ms > self.slo_ms), len(self.rungs)
        )
        return [*self.rungs[:count]]

    @property
    def images_per_s(self) -> float | None:
        """Throughput at the limit; None where no rung holds it."""
        held = self.held
        if not held:
            return None
        most = max(rung.images_per_s for rung in held)
        if len(held) == len(self.rungs):
            return most
        last, beyond = held[-1], self.rungs[len(held)]
        if math.isinf(beyond.tp99_ms):
            return most
        share = math.log(self.slo_ms / last.tp99_ms) / math.log(beyond.tp99_ms / last.tp99_ms)
        return max(most, last.images_per_s + share * (beyond.images_per_s - last.images_per_s))

    @property
    def score(self) -> float:
        """Its logarithm; where no rung holds the limit, less the further the lowest is beyond."""
        found = self.images_per_s
        if found is not None:
            return math.log(max(found, 1e-9))
        lowest = self.rungs[0]
        beyond = math.log(min(lowest.tp99_ms, 1e9) / self.slo_ms)
        return math.log(max(lowest.images_per_s, 1e-9)) - _BEYOND * beyond


class Climb:
    """Which rung is measured next: from one in the middle to where the limit is crossed.

    Args:
        clients: numbers of clients, ascending.
        slo_ms: the limit.
        start: index of the first one.
    """

    def __init__(self, clients: Sequence[int], slo_ms: float, start: int) -> None:
        self._clients = clients
        self._slo_ms = slo_ms
        self._next: int | None = min(start, len(clients) - 1)
        self._found: dict[int, Rung] = {}

    @property
    def next_clients(self) -> int | None:
        """The number of clients of the next rung; None where the ladder is known."""
        return None if self._next is None else self._clients[self._next]

    @property
    def top(self) -> int:
        """Index of the last rung that holds the limit, 0 where none does."""
        held = [i for i, rung in self._found.items() if rung.tp99_ms <= self._slo_ms]
        return max(held, default=0)

    def add(self, rung: Rung) -> None:
        """Take the rung that was asked for."""
        at = self._clients.index(rung.clients)
        self._found[at] = rung
        step = 1 if rung.tp99_ms <= self._slo_ms else -1
        following = at + step
        known = following in self._found or not 0 <= following < len(self._clients)
        self._next = None if known else following

    @property
    def ladder(self) -> Ladder:
        """What was measured."""
        return Ladder([self._found[index] for index in sorted(self._found)], self._slo_ms)
