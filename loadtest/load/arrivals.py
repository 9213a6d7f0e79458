"""When the requests of an open loop are to be sent, whatever becomes of those before them."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator

CONSTANT = "constant"
POISSON = "poisson"


def poisson(rate_per_s: float, start_s: float, seed: str) -> Iterator[float]:
    """Random times after `start_s`, as of independent callers, without end."""
    generator = random.Random(seed)  # noqa: S311 (guards no secret)
    due_s = start_s
    while True:
        due_s += generator.expovariate(rate_per_s)
        yield due_s


def constant(rate_per_s: float, start_s: float, share: float = 0.0) -> Iterator[float]:
    """Evenly spaced times after `start_s`, without end.

    They are on a grid that begins at 0 of the clock. Generators in several processes share that
    clock, and so make one even stream together.

    Args:
        rate_per_s: of this generator.
        start_s: the first time is later.
        share: where it stands between two lines of the grid, 0 to 1.
    """
    line = math.floor(start_s * rate_per_s - share) + 1
    while True:
        yield (line + share) / rate_per_s
        line += 1


def arrivals(
    kind: str, rate_per_s: float, start_s: float, generator: int, generators: int, seed: int
) -> Iterator[float]:
    """The times of one of several generators, which make a stream of `rate_per_s` together.

    Args:
        kind: one of ARRIVALS.
        rate_per_s: of all generators together.
        start_s: the first time is later.
        generator: its number from 0.
        generators: how many there are.
        seed: decides what is random.
    """
    return ARRIVALS[kind](rate_per_s / generators, start_s, generator, generators, seed)


ARRIVALS: dict[str, Callable[[float, float, int, int, int], Iterator[float]]] = {
    POISSON: lambda rate, start, number, _, seed: poisson(rate, start, f"{seed}/{number}/arrivals"),
    CONSTANT: lambda rate, start, number, count, _: constant(rate, start, number / count),
}
"""How the requests of an open loop may come."""
