"""Measuring an engine as the pipeline runs it: many contexts at once, each in its thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from engine.calibration.choice import (
    FEWEST_ROUNDS,
    SHORTEST_WINDOW_S,
    choose_batch,
    choose_contexts,
    faster_by,
    plan,
)
from engine.calibration.side_by_side import SideBySide, made_up_items, rows_per_s
from engine.interface import Engine

# For loading and measuring; a model that loads slowly still gets a second for the measurement.
_LIMIT_S, _LEAST_S = 3.0, 1.0
_SHARE_OF_SIZES = 0.65


class CannotMeasureError(Exception):
    """Why there is no measurement, as the end of a sentence."""


@dataclass(frozen=True)
class Open:
    """What is to be found out.

    Attributes:
        sizes: sizes of a batch, the smallest first; one where it is given.
        contexts: numbers of contexts, the usual one first; one where it is given.
    """

    sizes: tuple[int, ...]
    contexts: tuple[int, ...]

    @property
    def is_decided(self) -> bool:
        """Whether nothing is open."""
        return len(self.sizes) == len(self.contexts) == 1


@dataclass(frozen=True)
class Verdict:
    """What suits the machine.

    Attributes:
        batch: rows of the largest batch.
        contexts: how many run at the same time.
        reason: what was measured, as a part of a sentence.
    """

    batch: int
    contexts: int
    reason: str


def measure(asked: Open, load: Callable[[int, int], Engine]) -> Verdict:
    """Load an engine and measure it; in 3 s, or 1 s more than loading takes.

    Args:
        asked: what is to be found out.
        load: gives an engine for batches up to the first number, and so many contexts.

    Raises:
        CannotMeasureError: the model is too slow for that.
        Exception: what an engine raises that cannot load or run the model.
    """
    began_s = time.monotonic()
    engine = load(asked.sizes[-1], max(asked.contexts))
    try:
        contexts = SideBySide(engine, max(asked.contexts))
        try:
            end_s = max(began_s + _LIMIT_S, time.monotonic() + _LEAST_S)
            return _Measurement(engine, contexts, end_s).verdict(asked)
        finally:
            contexts.close()
    finally:
        engine.close()


class _Measurement:
    def __init__(self, engine: Engine, contexts: SideBySide, end_s: float) -> None:
        self._contexts = contexts
        self._end_s = end_s
        self._items = made_up_items(engine.model, engine.options.max_batch_size)

    def verdict(self, asked: Open) -> Verdict:
        batch, usual = asked.sizes[0], asked.contexts[0]
        # The first run may compile, or allocate.
        row_s = usual / self._rate(batch, usual, 0.0)
        if time.monotonic() > self._end_s:
            raise _no_time(row_s)
        row_s = usual / self._rate(batch, usual, SHORTEST_WINDOW_S)
        reasons = []
        if len(asked.sizes) > 1:
            share = _SHARE_OF_SIZES if len(asked.contexts) > 1 else 1.0
            by_way = self._rounds([(size, usual) for size in asked.sizes], row_s, share)
            rates = {size: values for (size, _), values in by_way.items()}
            batch = choose_batch(rates)
            reasons.append(_about_sizes(batch, rates))
        contexts = usual
        if len(asked.contexts) > 1:
            try:
                by_way = self._rounds([(batch, number) for number in asked.contexts], row_s, 1.0)
            except CannotMeasureError:
                # What is known of the sizes counts all the same.
                if not reasons:
                    raise
            else:
                rates = {number: values for (_, number), values in by_way.items()}
                contexts = choose_contexts(rates)
                reasons.append(_about_contexts(contexts, rates))
        return Verdict(batch, contexts, "; ".join(reasons))

    def _rounds(
        self, ways: Sequence[tuple[int, int]], row_s: float, share: float
    ) -> Mapping[tuple[int, int], Sequence[float]]:
        """Rates of sizes and numbers of contexts, in turn, forwards and backwards by turns.

        Args:
            ways: each a size of a batch, and a number of contexts.
            row_s: how long a row takes.
            share: of the time that is left.

        Returns:
            Those of the ways for which there was time.
        """
        budget_s = share * (self._end_s - time.monotonic())
        end_s = time.monotonic() + budget_s
        sizes, window_s, rounds = plan([size for size, _ in ways], row_s, budget_s)
        measured: dict[tuple[int, int], list[float]] = {way: [] for way in ways[: len(sizes)]}
        for way in measured:
            # Some engines compile something for each size.
            self._rate(*way, 0.0)
        for number in range(rounds):
            for way in list(measured) if number % 2 == 0 else reversed(measured):
                measured[way].append(self._rate(*way, window_s))
            if time.monotonic() > end_s:
                break
        if min(map(len, measured.values()), default=0) < FEWEST_ROUNDS:
            raise _no_time(row_s)
        return measured

    def _rate(self, batch: int, contexts: int, window_s: float) -> float:
        return rows_per_s(batch, self._contexts.run(self._items[:batch], window_s, contexts))


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


def _about_contexts(chosen: int, rates: Mapping[int, Sequence[float]]) -> str:
    usual = next(iter(rates))
    gains = {number: f"{faster_by(rates[number], rates[usual]):.2f} x" for number in rates}
    if chosen != usual:
        return f"{chosen} instances: {gains[chosen]} the images a second of {usual}"
    others = ", ".join(f"{number} {gains[number]}" for number in rates if number != usual)
    return f"{usual} instances: no other number is clearly faster ({others})"
