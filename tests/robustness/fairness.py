"""Fairness: what a caller of one image waits beside callers that send hundreds."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median

from loadtest.errors import LoadTestError
from tests.robustness.checking_clients import (
    HUNG,
    LOST,
    RIGHT,
    CheckingClients,
    Habits,
    KnownImage,
    wait_until,
)

BULK_CALLERS = 4
BULK_IMAGES = 256
_LONE_SHARE, _BULK_SHARE, _SETTLING_SHARE = 0.2, 0.35, 0.1
_TIMEOUT_S = 120.0
_RETRY_S = 0.05


@dataclass
class Fairness:
    """What was measured.

    Attributes:
        lone_ms: latencies of single images without other callers.
        crowded_ms: the same beside the bulk callers.
        bulk_per_s: images of the bulk callers alone.
        all_per_s: images of all together.
        counts: images by outcome.
    """

    lone_ms: list[float] = field(default_factory=list)
    crowded_ms: list[float] = field(default_factory=list)
    bulk_per_s: float = 0.0
    all_per_s: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def ratio(self) -> float:
        """The median latency beside bulk callers over that without."""
        return median(self.crowded_ms) / median(self.lone_ms)

    @property
    def throughput(self) -> float:
        """Images a second of all callers over those of the bulk callers alone."""
        return self.all_per_s / self.bulk_per_s


def measure(
    port: int, images: Sequence[KnownImage], length_s: float, bulk_images: int = BULK_IMAGES
) -> Fairness:
    """A caller of single images alone, four bulk callers without it, and all together.

    Args:
        port: of the server.
        images: what to send.
        length_s: of all; the bulk callers' last calls end later.
        bulk_images: images in each of their calls.

    Raises:
        LoadTestError: a wrong answer came, or a connection broke.
    """
    found = Fairness()

    def callers(count: int, n: int) -> CheckingClients:
        habits = Habits(images, n, n, timeout_s=_TIMEOUT_S, retry_s=_RETRY_S)
        return CheckingClients(port, count, habits, seed=0)

    def single(share: float, settling_share: float = 0.0) -> tuple[list[float], int]:
        """Latencies in ms after it has settled, at least one, and all right answers."""
        with callers(1, 1) as one:
            wait_until(lambda: one.counts[RIGHT] > 0, _TIMEOUT_S)
            time.sleep(settling_share * length_s)
            first = len(one.right_ms)
            time.sleep(share * length_s)
            wait_until(lambda: len(one.right_ms) > first, _TIMEOUT_S)
        _add(found, one)
        return one.right_ms[first:], one.counts[RIGHT]

    def bulk_per_s(meanwhile: Callable[[], int]) -> float:
        """Right images a second of bulk callers, and of those meanwhile, until all are done."""
        started_s = time.perf_counter()
        with callers(BULK_CALLERS, bulk_images) as bulk:
            others = meanwhile()
        _add(found, bulk)
        return (bulk.counts[RIGHT] + others) / (time.perf_counter() - started_s)

    def alone() -> int:
        time.sleep(_BULK_SHARE * length_s)
        return 0

    def beside() -> int:
        share = 1 - _LONE_SHARE - _BULK_SHARE - _SETTLING_SHARE
        found.crowded_ms, right = single(share, _SETTLING_SHARE)
        return right

    found.lone_ms, _ = single(_LONE_SHARE)
    found.bulk_per_s = bulk_per_s(alone)
    found.all_per_s = bulk_per_s(beside)
    return found


def _add(found: Fairness, clients: CheckingClients) -> None:
    found.counts.update(clients.counts)
    if clients.wrongs or clients.counts[LOST] or clients.counts[HUNG]:
        raise LoadTestError(f"beside bulk callers: {dict(clients.counts)} {clients.wrongs[:1]}")
