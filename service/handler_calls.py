"""Calls of the handler: which images it gets, and when."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from engine.cpu.cores import available_cores
from service.admission import Place
from service.call_counts import CallCounts
from service.call_limits import CallLimits
from service.handlers.deadline import Deadline
from service.handlers.interface import Handler
from service.handlers.outcomes import ImageFailure, Scores, was_worked_on
from service.handlers.turn_lock import TurnLock
from service.images.cost import forget_cost, remember_cost

COSTLY_WORK = 4_000_000
"""Of an image, as `service.images.cost` has it: 0.05 s of CPU time. Less is no burden."""


class HandlerCalls:
    """Gives the images of calls to the handler; called from many threads at once.

    Args:
        handler: classifies.
        limits: which images it may get.
        counts: where the outcome of each image is counted.
    """

    def __init__(self, handler: Handler, limits: CallLimits, counts: CallCounts) -> None:
        self._handler = handler
        self._limits = limits
        self._counts = counts
        # Held for each costly image that the handler has.
        self._costly_lock = TurnLock(max(1, available_cores() - 1))

    def classify(
        self, images: Sequence[bytes], deadline: Deadline, place: Place
    ) -> list[Scores | ImageFailure]:
        """One outcome an image, in order, and each of them counted.

        The handler does not get images that the limits refuse, nor those for which no time is left.
        Costly ones go to it after the others, so many at a time as leave a core to other calls.
        Scores that are no finite numbers become failures.
        """
        try:
            outcomes = self._outcomes(images, deadline, place)
        finally:
            for image in images:
                forget_cost(image)
        in_order = [outcomes[index] for index in range(len(images))]
        for outcome in in_order:
            self._counts.image_done(outcome.outcome, outcome.stage_times_ms)
        return in_order

    def _outcomes(
        self, images: Sequence[bytes], deadline: Deadline, place: Place
    ) -> dict[int, Scores | ImageFailure]:
        """The outcome of each image by its place in the call; costs stay remembered."""
        outcomes: dict[int, Scores | ImageFailure] = {}
        usual: list[int] = []
        costly: list[int] = []
        for index, image in enumerate(images):
            try:
                if index:
                    # Headers of some images take milliseconds each.
                    deadline.check()
                cost = self._limits.image_cost(image)
            except ImageFailure as failure:
                outcomes[index] = failure
                continue
            if cost is not None:
                remember_cost(image, cost)
            (costly if cost is not None and cost.work > COSTLY_WORK else usual).append(index)
        classify = partial(self._classify_some, images, deadline, place, outcomes)
        if usual:
            classify(usual)
        while costly:
            held = int(self._costly_lock.acquire(max(0.0, deadline.remaining_s())))
            # No other call waits where more are free.
            while 0 < held < len(costly) and self._costly_lock.acquire(0.0):
                held += 1
            # With none of them the time is over, and the handler drops the images.
            some = costly[: held or None]
            del costly[: len(some)]
            try:
                classify(some)
            finally:
                for _ in range(held):
                    self._costly_lock.release()
        return outcomes

    def _classify_some(
        self,
        images: Sequence[bytes],
        deadline: Deadline,
        place: Place,
        outcomes: dict[int, Scores | ImageFailure],
        indices: Sequence[int],
    ) -> None:
        """Add the handler's outcomes of those images of a call."""
        found = self._handler.classify([images[index] for index in indices], deadline)
        if len(found) != len(indices):
            raise RuntimeError(f"the handler gave {len(found)} outcomes for {len(indices)} images")
        place.worked_on += sum(map(was_worked_on, found))
        outcomes.update(zip(indices, map(_checked, found), strict=True))


def _checked(outcome: Scores | ImageFailure) -> Scores | ImageFailure:
    # Nothing is rebuilt for it: it may be this one image that makes the model overflow.
    if isinstance(outcome, Scores) and not outcome.are_finite():
        return ImageFailure("the model's scores are not finite numbers")
    return outcome
