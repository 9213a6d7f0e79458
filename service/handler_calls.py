"""Calls of the handler: which images it gets, and when."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from engine.cpu.cores import available_cores
from service.admission import Place
from service.call_counts import CallCounts
from service.call_limits import CallLimits
from service.handlers.deadline import Deadline
from service.handlers.interface import BeginningHandler, Handler
from service.handlers.outcomes import ImageFailure, Scores, was_worked_on
from service.handlers.turn_lock import TurnLock
from service.images.cost import forget_cost, remember_cost

COSTLY_WORK = 4_000_000
"""Of an image, as `service.images.cost` has it: 0.05 s of CPU time. Less is no burden."""


_T = TypeVar("_T")
_Outcomes = list[Scores | ImageFailure]


@dataclass(frozen=True)
class Begun(Generic[_T]):
    """A call that was begun.

    Attributes:
        waits_until_s: when the wait for it is over, on the monotonic clock; infinite where it lasts
            until the call is done.
        result: gives what became of it, or raises. It has to be called once: when the call is
            done, or the wait is over.
    """

    waits_until_s: float
    result: Callable[[], _T]


class HandlerCalls:
    """Gives the images of calls to the handler; called from many threads at once.

    Args:
        handler: classifies.
        limits: which images it may get.
        counts: where the outcome of each image is counted.
    """

    def __init__(self, handler: Handler, limits: CallLimits, counts: CallCounts) -> None:
        self._handler = handler
        self._begin = handler.begin if isinstance(handler, BeginningHandler) else None
        self._limits = limits
        self._counts = counts
        # Held for each costly image that the handler has.
        self._costly_lock = TurnLock(max(1, available_cores() - 1))

    def classify(self, images: Sequence[bytes], deadline: Deadline, place: Place) -> _Outcomes:
        """One outcome an image, in order, and each of them counted.

        The handler does not get images that the limits refuse, nor those for which no time is left.
        Costly ones go to it after the others, so many at a time as leave a core to other calls.
        Scores that are no finite numbers become failures.
        """
        call = _Images(images, deadline, place)
        try:
            self._judge(call)
            self._classify(call)
        finally:
            call.forget_costs()
        return self._counted(call)

    def begin(
        self, images: Sequence[bytes], deadline: Deadline, place: Place, done: Callable[[], None]
    ) -> Begun[_Outcomes]:
        """As `classify`, for a thread that has other calls to begin before it waits.

        Costly images, and those of a handler that lets nobody begin, get a thread of their own.

        Args:
            images: at least one.
            deadline: of the call.
            place: of the call.
            done: called when all are done, in any thread, or at once: it neither waits nor raises.
        """
        call = _Images(images, deadline, place)
        try:
            self._judge(call)
            if not call.usual and not call.costly:
                done()
            elif call.costly or self._begin is None:
                return self._in_a_thread(call, done)
            else:
                return self._begun(call, self._begin(call.some(call.usual), deadline, done))
        except BaseException:
            call.forget_costs()
            raise
        return Begun(math.inf, partial(self._counted, call))

    def _begun(self, call: _Images, finish: Callable[[], _Outcomes]) -> Begun[_Outcomes]:
        def outcomes() -> _Outcomes:
            try:
                call.add(call.usual, finish())
            finally:
                call.forget_costs()
            return self._counted(call)

        return Begun(call.deadline.at_s, outcomes)

    def _in_a_thread(self, call: _Images, done: Callable[[], None]) -> Begun[_Outcomes]:
        failed: list[BaseException] = []

        def classify() -> None:
            try:
                self._classify(call)
            except BaseException as error:  # noqa: BLE001 (raised where the outcomes are asked for)
                failed.append(error)
            finally:
                call.forget_costs()
                done()

        def outcomes() -> _Outcomes:
            if failed:
                raise failed[0]
            return self._counted(call)

        threading.Thread(target=classify, name="call", daemon=True).start()
        return Begun(math.inf, outcomes)

    def _counted(self, call: _Images) -> _Outcomes:
        in_order = call.in_order()
        for outcome in in_order:
            self._counts.image_done(outcome.outcome, outcome.stage_times_ms)
        return in_order

    def _judge(self, call: _Images) -> None:
        """Tell usual images of a call from costly ones, and from those that are refused."""
        for index, image in enumerate(call.images):
            try:
                if index:
                    # Headers of some images take milliseconds each.
                    call.deadline.check()
                cost = self._limits.image_cost(image)
            except ImageFailure as failure:
                call.outcomes[index] = failure
                continue
            if cost is not None:
                remember_cost(image, cost)
            is_costly = cost is not None and cost.work > COSTLY_WORK
            (call.costly if is_costly else call.usual).append(index)

    def _classify(self, call: _Images) -> None:
        """Add what the handler says of the images that were not refused."""
        if call.usual:
            call.add(call.usual, self._handler.classify(call.some(call.usual), call.deadline))
        costly = call.costly
        while costly:
            held = int(self._costly_lock.acquire(max(0.0, call.deadline.remaining_s())))
            # No other call waits where more are free.
            while 0 < held < len(costly) and self._costly_lock.acquire(0.0):
                held += 1
            # With none of them the time is over, and the handler drops the images.
            some = costly[: held or None]
            del costly[: len(some)]
            try:
                call.add(some, self._handler.classify(call.some(some), call.deadline))
            finally:
                for _ in range(held):
                    self._costly_lock.release()


class _Images:
    """The images of one call, while they are with the handler.

    Attributes:
        usual: which of them, by their places in the call, are no burden.
        costly: which of them take long, and are still to be given to the handler.
        outcomes: by place, as far as they are known.
    """

    __slots__ = ("costly", "deadline", "images", "outcomes", "place", "usual")

    def __init__(self, images: Sequence[bytes], deadline: Deadline, place: Place) -> None:
        self.images = images
        self.deadline = deadline
        self.place = place
        self.usual: list[int] = []
        self.costly: list[int] = []
        self.outcomes: dict[int, Scores | ImageFailure] = {}

    def some(self, indices: Sequence[int]) -> list[bytes]:
        """The images in those places."""
        return [self.images[index] for index in indices]

    def add(self, indices: Sequence[int], found: _Outcomes) -> None:
        """These are the handler's outcomes of the images in those places."""
        if len(found) != len(indices):
            raise RuntimeError(f"the handler gave {len(found)} outcomes for {len(indices)} images")
        self.place.worked_on += sum(map(was_worked_on, found))
        self.outcomes.update(zip(indices, map(_checked, found), strict=True))

    def in_order(self) -> _Outcomes:
        """All outcomes."""
        return [self.outcomes[index] for index in range(len(self.images))]

    def forget_costs(self) -> None:
        """The images are done, or let go."""
        for image in self.images:
            forget_cost(image)


def _checked(outcome: Scores | ImageFailure) -> Scores | ImageFailure:
    # Nothing is rebuilt for it: it may be this one image that makes the model overflow.
    if isinstance(outcome, Scores) and not outcome.are_finite():
        return ImageFailure("the model's scores are not finite numbers")
    return outcome
