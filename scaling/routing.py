"""Which replica gets an image: the rules, and what a front end knows of the replicas.

The simulation and the measurement of real servers route with this same code.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Protocol

import numpy as np
import numpy.typing as npt


class View(Protocol):
    """What a front end believes is in each replica."""

    @property
    def images(self) -> npt.NDArray[np.float64]:
        """Images in each replica, shape (replicas,)."""

    def sent(self, replica: int) -> None:
        """An image goes there now."""

    def answered(self, replica: int) -> None:
        """The outcome of an image that went there has come back."""


class CountedView:
    """Images that were sent through this view and are not answered.

    One for each front end is what a balancer with `leastconn` knows: its own calls. One that all
    front ends share is a perfect view.

    Args:
        replicas: how many there are.
    """

    def __init__(self, replicas: int) -> None:
        self.images = np.zeros(replicas)

    def sent(self, replica: int) -> None:
        """Count it."""
        self.images[replica] += 1

    def answered(self, replica: int) -> None:
        """Count it no more."""
        self.images[replica] -= 1


class ReportedView:
    """The last report of the replicas, and what this front end has sent and got back since.

    Args:
        truth: the view that all front ends share, which a report copies.
    """

    def __init__(self, truth: CountedView) -> None:
        self._truth = truth
        self.images = truth.images.copy()

    def refresh(self) -> None:
        """A report has come."""
        np.copyto(self.images, self._truth.images)

    def sent(self, replica: int) -> None:
        """Count it."""
        self.images[replica] += 1

    def answered(self, replica: int) -> None:
        """Count it no more; the report may have been older than the image."""
        if self.images[replica] > 0:
            self.images[replica] -= 1


Rule = Callable[[View], int]


def _random(replicas: int, seed: str) -> Rule:
    draw = random.Random(seed).randrange  # noqa: S311 (guards no secret)
    return lambda _: draw(replicas)


def _round_robin(replicas: int, seed: str) -> Rule:
    # Front ends that began with the same replica would load the same ones at the same time.
    place = random.Random(seed).randrange(replicas)  # noqa: S311

    def choose(_: View) -> int:
        nonlocal place
        place = (place + 1) % replicas
        return place

    return choose


def _two_choices(replicas: int, seed: str) -> Rule:
    draw = random.Random(seed).randrange  # noqa: S311

    def choose(view: View) -> int:
        one = draw(replicas)
        if replicas == 1:
            return one
        other = (one + 1 + draw(replicas - 1)) % replicas
        return one if view.images[one] <= view.images[other] else other

    return choose


def _least(replicas: int, seed: str) -> Rule:
    generator = np.random.default_rng([*seed.encode()])

    def choose(view: View) -> int:
        # Among equals any one: the first of them would get what all front ends send.
        return int(np.argmin(view.images + generator.random(replicas)))

    return choose


RULES: dict[str, Callable[[int, str], Rule]] = {
    "random": _random,
    "round robin": _round_robin,
    "two choices": _two_choices,
    "least": _least,
}
"""Name to what makes the rule, of the number of replicas and a seed."""
BLIND = ("random", "round robin")
"""Rules that look at no view."""
