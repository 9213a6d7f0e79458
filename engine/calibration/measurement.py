"""Measuring an engine as the pipeline runs it: many contexts at once, each in its thread.

Before each batch its thread does for every row what comes before the engine, as it does in the
pipeline. Between two runs that follow at once the caches would still hold the weights: a batch of
two EfficientNet-Lite0 gained 2 % so, and 8 % in the server.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from engine.calibration.choice import (
    FEWEST_ROUNDS,
    MOST_ROUNDS,
    SHORTEST_WINDOW_S,
    choose_batch,
    faster_by,
    finalists,
    plan,
    window_of,
)
from engine.calibration.side_by_side import SideBySide, made_up_items, rows_per_s
from engine.interface import Engine

# For loading and measuring; a model that loads slowly still gets a second for the measurement.
_LIMIT_S, _LEAST_S = 3.0, 1.0


class CannotMeasureError(Exception):
    """Why there is no measurement, as the end of a sentence."""


@dataclass(frozen=True)
class Open:
    """What is to be found out.

    Attributes:
        sizes: sizes of a batch, the smallest first.
        contexts: how many run at the same time.
    """

    sizes: tuple[int, ...]
    contexts: int


@dataclass(frozen=True)
class Verdict:
    """What suits the machine.

    Attributes:
        batch: rows of the largest batch.
        reason: what was measured, as a part of a sentence.
        cpu_share: CPU time of this process, as a part of the time of the measurement's threads, in
            the rounds of all sizes or in the others, where it is less: less than 1 where others
            have the cores, more where a context has several threads.
    """

    batch: int
    reason: str
    cpu_share: float


def measure(
    asked: Open, load: Callable[[int], Engine], before_row: Callable[[], object]
) -> Verdict:
    """Load an engine and measure it; in 3 s, or 1 s more than loading takes.

    Args:
        asked: what is to be found out.
        load: gives an engine for batches of so many rows.
        before_row: what comes before the engine, such as decoding an image.

    Raises:
        CannotMeasureError: the model is too slow for that.
        Exception: what an engine raises that cannot load or run the model.
    """
    began_s = time.monotonic()
    engine = load(asked.sizes[-1])
    try:
        contexts = SideBySide(engine, asked.contexts)
        try:
            end_s = max(began_s + _LIMIT_S, time.monotonic() + _LEAST_S)
            measurement = _Measurement(engine, contexts, end_s, before_row)
            rates = measurement.rates(asked)
        finally:
            contexts.close()
    finally:
        engine.close()
    batch = choose_batch(rates)
    return Verdict(batch, _about_sizes(batch, rates), measurement.cpu_share)


@dataclass
class _Times:
    """CPU time of this process, and time of the threads that measured meanwhile."""

    cpu_s: float = 0.0
    threads_s: float = 0.0


class _Measurement:
    def __init__(
        self,
        engine: Engine,
        contexts: SideBySide,
        end_s: float,
        before_row: Callable[[], object],
    ) -> None:
        self._contexts = contexts
        self._end_s = end_s
        self._before_row = before_row
        self._items = made_up_items(engine.model, engine.options.max_batch_size)
        # Of the rounds of all sizes, and of the others.
        self._times_s: list[_Times] = []

    @property
    def cpu_share(self) -> float:
        """As the verdict has it."""
        return min(times.cpu_s / times.threads_s for times in self._times_s if times.threads_s)

    def rates(self, asked: Open) -> Mapping[int, Sequence[float]]:
        """Rates of the sizes for which there was time; those of the finalists are more.

        Raises:
            CannotMeasureError: there was no time.
        """
        smallest = asked.sizes[0]
        # The first run may compile, or allocate.
        row_s = asked.contexts / rows_per_s(smallest, self._run(smallest, 0.0))
        if time.monotonic() > self._end_s:
            raise _no_time(row_s)
        row_s = asked.contexts / rows_per_s(smallest, self._run(smallest, SHORTEST_WINDOW_S))
        measured: dict[int, list[float]] = {
            size: [] for size in plan(asked.sizes, row_s, self._end_s - time.monotonic())
        }
        for size in measured:
            # Some engines compile something for each size.
            self._run(size, 0.0)
        sizes = list(measured)
        self._times_s.append(_Times())
        rounds = 0
        while sizes and rounds < MOST_ROUNDS and time.monotonic() < self._end_s:
            window_s = window_of(sizes[-1], row_s)
            # In turn, forwards and backwards.
            for size in sizes if rounds % 2 == 0 else reversed(sizes):
                measured[size].append(self._rate(size, window_s))
            rounds += 1
            if rounds == FEWEST_ROUNDS:
                sizes = finalists(measured)
                self._times_s.append(_Times())
        if rounds < FEWEST_ROUNDS:
            raise _no_time(row_s)
        return measured

    def _rate(self, size: int, window_s: float) -> float:
        times, began_s = self._times_s[-1], time.process_time()
        took_s = self._run(size, window_s)
        times.cpu_s += time.process_time() - began_s
        times.threads_s += sum(map(sum, took_s))
        return rows_per_s(size, took_s)

    def _run(self, batch: int, window_s: float) -> list[list[float]]:
        return self._contexts.run(self._items[:batch], window_s, self._before_row)


def _no_time(row_s: float) -> CannotMeasureError:
    return CannotMeasureError(
        f"there was no time for {FEWEST_ROUNDS} rounds: an image takes {row_s * 1000:.0f} ms"
    )


def _about_sizes(chosen: int, rates: Mapping[int, Sequence[float]]) -> str:
    gains = {size: f"{faster_by(rates[size], rates[1]):.2f} x" for size in rates if size > 1}
    if chosen > 1:
        return f"batches of {chosen}: {gains[chosen]} the images a second of single ones"
    others = ", ".join(f"of {size} {gain}" for size, gain in gains.items())
    return f"single images: no larger batches are clearly faster ({others})"
