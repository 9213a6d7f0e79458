"""A simulated replica: one server of ours, with its admission, its queue and its instances.

Admission, and the rule by which batches leave, are the server's own code on the simulation's clock.
"""

from __future__ import annotations

import math
import random
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean

import simpy

from idl import inference
from pipeline.runtime.batch_rule import BatchRule
from service.admission import Admission, Place
from service.handlers.deadline import Deadline


@dataclass(frozen=True)
class ReplicaSettings:
    """A replica; each instance runs a batch of n images in `batch_ms + n * image_ms`.

    Attributes:
        instances: what works on batches at once: GPUs, cores or processes of the replica.
        largest: images of the largest batch.
        batch_ms: time of a batch, whatever is in it.
        image_ms: time of each image of it.
        smallest: images that an instance waits for.
        timeout_ms: how long it waits, `batching_timeout`.
        max_queue_ms: the service's; 0 for no such limit.
        max_queue: the service's.
        other_at_work: images that its other nodes work on at once, which admission counts, too.
        extras_ms: what a batch takes besides, one of these by chance; empty for nothing.
    """

    instances: int
    largest: int
    batch_ms: float
    image_ms: float
    smallest: int = 1
    timeout_ms: float = 5.0
    max_queue_ms: int = 450
    max_queue: int = 1024
    other_at_work: int = 0
    extras_ms: tuple[float, ...] = ()

    @property
    def images_per_s(self) -> float:
        """With full batches, all the time."""
        extra_ms = fmean(self.extras_ms) if self.extras_ms else 0.0
        return 1000 * self.instances * self.largest / (self.batch_time_ms(self.largest) + extra_ms)

    def batch_time_ms(self, images: int) -> float:
        """How long a batch of so many images takes, without extras."""
        return self.batch_ms + images * self.image_ms


class Image:
    """An image on its way.

    Attributes:
        number: in the order of arrivals.
        due_s: when it was to be sent.
        deadline_s: until when its client waits for it; infinite for ever.
        front_end: that it came to.
        queued_s: when it came into the replica's queue.
        place: of admission, once it has one.
    """

    __slots__ = ("deadline_s", "due_s", "front_end", "number", "place", "queued_s")

    def __init__(self, number: int, due_s: float, front_end: int, deadline_s: float) -> None:
        self.number = number
        self.due_s = due_s
        self.front_end = front_end
        self.deadline_s = deadline_s
        self.queued_s = 0.0
        self.place: Place | None = None


class _Waiting(deque[Image]):
    """The images of a queue, first in, first out, as `BatchRule` sees them."""

    @property
    def rows(self) -> int:
        return len(self)

    def oldest_s(self) -> float:
        return self[0].queued_s

    def take(self, largest: int, most_charged: int) -> list[Image]:  # noqa: ARG002 (one row each)
        return [self.popleft() for _ in range(min(len(self), largest))]


@dataclass(frozen=True)
class _SimulatedDeadline(Deadline):
    """A deadline on the simulation's clock."""

    now: Callable[[], float] = lambda: 0.0

    def remaining_s(self) -> float:
        return self.at_s - self.now()


ANSWERED, REFUSED, EXPIRED = "answered", "refused", "expired"
"""What becomes of an image: its scores, Overloaded, or a deadline that passed before its batch."""


class Replica:
    """Takes images and tells of each outcome once.

    Args:
        env: the simulation.
        settings: what it is.
        on_outcome: called with an image and one of ANSWERED, REFUSED, EXPIRED.
        seed: decides which extras batches have.

    Attributes:
        sizes: images of a batch to how many batches had so many.
    """

    def __init__(
        self,
        env: simpy.Environment,
        settings: ReplicaSettings,
        on_outcome: Callable[[Image, str], None],
        seed: str,
    ) -> None:
        self._env = env
        self._settings = settings
        self._on_outcome = on_outcome
        # A generator of random numbers takes 2.5 KB: for 1,000 replicas only where there is use.
        self._extra = random.Random(seed) if settings.extras_ms else None  # noqa: S311
        self._waiting = _Waiting()
        self._rule = BatchRule(self._waiting, settings.timeout_ms, self._now_s)
        self._idle = settings.instances
        self._alarm_s = math.inf
        self.sizes: Counter[int] = Counter()
        self._busy_s = 0.0
        # Those of the batches at work, added up.
        self._starts_s = 0.0
        at_work = settings.instances * settings.largest + settings.other_at_work
        self._admission = Admission(
            at_work,
            settings.max_queue,
            settings.max_queue_ms,
            # What warming up would have measured.
            1 / settings.images_per_s,
            self._now_s,
        )

    def _now_s(self) -> float:
        return float(self._env.now)

    def busy_s(self) -> float:
        """Time that instances have worked until now, added up."""
        working = self._settings.instances - self._idle
        return self._busy_s + working * self._now_s() - self._starts_s

    def offer(self, image: Image) -> None:
        """An image arrives."""
        now_s = self._now_s()
        deadline = None
        if image.deadline_s < math.inf:
            timeout_ms = round(1000 * (image.deadline_s - image.due_s))
            deadline = _SimulatedDeadline(image.deadline_s, timeout_ms, now=self._now_s)
        try:
            image.place = self._admission.admit(1, deadline)
        except inference.Overloaded:
            self._on_outcome(image, REFUSED)
            return
        image.queued_s = now_s
        self._waiting.append(image)
        self._rule.missing -= 1
        if self._idle:
            self._hand_out(now_s)

    def _hand_out(self, now_s: float) -> None:
        settings, rule = self._settings, self._rule
        while self._idle and self._waiting:
            batch = rule.take(settings.smallest, settings.largest, now_s)
            if batch is None:
                self._set_alarm(rule.leaves_at_s(settings.smallest))
                return
            self._start(batch, now_s)

    def _set_alarm(self, at_s: float) -> None:
        if at_s < self._alarm_s:
            self._alarm_s = at_s
            alarm = self._env.timeout(at_s - self._now_s())
            assert alarm.callbacks is not None  # noqa: S101 (it has not happened yet)
            alarm.callbacks.append(self._on_alarm)

    def _on_alarm(self, _: simpy.Event) -> None:
        # Added up in floating point, the clock may stand a hair before the time of the alarm.
        now_s = max(self._now_s(), self._alarm_s)
        self._alarm_s = math.inf
        self._hand_out(now_s)

    def _start(self, batch: list[Image], now_s: float) -> None:
        alive = [image for image in batch if image.deadline_s > now_s]
        for image in batch:
            if image.deadline_s <= now_s:
                self._leave(image, EXPIRED)
        if not alive:
            return
        self._idle -= 1
        self.sizes[len(alive)] += 1
        batch_s = self._settings.batch_time_ms(len(alive)) / 1000
        if self._extra is not None:
            batch_s += self._extra.choice(self._settings.extras_ms) / 1000
        self._starts_s += now_s
        done = self._env.timeout(batch_s)
        assert done.callbacks is not None  # noqa: S101 (it has not happened yet)
        done.callbacks.append(lambda _: self._done(alive, now_s))

    def _done(self, batch: list[Image], start_s: float) -> None:
        now_s = self._now_s()
        batch_s = now_s - start_s
        self._busy_s += batch_s
        self._starts_s -= start_s
        self._rule.batch_done(len(batch), batch_s)
        for image in batch:
            self._leave(image, ANSWERED)
        self._idle += 1
        self._hand_out(now_s)

    def _leave(self, image: Image, outcome: str) -> None:
        assert image.place is not None  # noqa: S101 (it was admitted)
        self._admission.leave(image.place, 1, int(outcome == ANSWERED))
        self._on_outcome(image, outcome)
