"""Load on anything that takes images, in this process: clients that each call and wait.

What is called may be a pipe or any function of a user's. Every client is a thread that sends one
request after the other, of images taken at random, each client in an order of its own that is the
same in every run.
"""

from __future__ import annotations

import math
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, count
from statistics import fmean
from typing import TypeAlias

from interfaces.error_text import in_one_line
from measurement.statistics import Interval, Spread, percentile, percentile_interval
from pipeline.benchmark.side import in_clients
from pipeline.image_files import Image

Request: TypeAlias = Callable[[list[Image]], "Sequence[str]"]
"""Runs the images of one request; gives one line for each of them that has failed."""

_WARM_UP_REQUESTS = 5
# A run is cut into as many parts, whose throughput shows how steady it was.
_PARTS = 5


@dataclass(frozen=True)
class Load:
    """What is sent.

    Attributes:
        clients: how many call side by side.
        request_batch: images of a request.
        duration_s: how long they call; None for as long as `images` takes.
        images: how many are sent, of all clients together; None for as many as `duration_s` takes.
        in_order: whether they are taken in order, from first to last and again, and not at random.
    """

    clients: int = 10
    request_batch: int = 1
    duration_s: float | None = None
    images: int | None = None
    in_order: bool = False


@dataclass(frozen=True)
class LoadOutcome:
    """What came of it.

    Attributes:
        load: what was sent.
        images: how many have a result.
        failures: how many images failed, by what their errors say.
        latencies_ms: of the requests without a failed image, in ascending order.
        ends: of each request when it was over, in seconds from the start, and how many images of
            it have a result; in no order.
        wall_s: from the start to the last answer.
        cpu_s: CPU time of the whole process meanwhile, with that of the clients.
    """

    load: Load
    images: int
    failures: Counter[str]
    latencies_ms: tuple[float, ...]
    ends: tuple[tuple[float, int], ...]
    wall_s: float
    cpu_s: float

    @property
    def qps(self) -> float:
        """Images with a result a second."""
        return self.images / self.wall_s

    @property
    def qps_of_parts(self) -> Spread:
        """Images a second in each of five parts of the run."""
        part_s = self.wall_s / _PARTS
        counts = [0] * _PARTS
        for end_s, images in self.ends:
            counts[min(int(end_s / part_s), _PARTS - 1)] += images
        return Spread.of([count / part_s for count in counts])

    @property
    def mean_ms(self) -> float:
        """Mean latency of a request."""
        return fmean(self.latencies_ms)

    def tp_ms(self, q: float) -> float:
        """A percentile of the latencies; ValueError where there are none."""
        return percentile(self.latencies_ms, q)

    def tp_interval(self, q: float) -> Interval:
        """Its confidence interval of 95 %."""
        return percentile_interval(self.latencies_ms, q)


def warm_up(requests: Sequence[Request], images: Sequence[Image], load: Load) -> None:
    """Send a few requests of each client, which nothing counts."""
    few = _WARM_UP_REQUESTS * load.clients * load.request_batch
    run_load(requests, images, Load(load.clients, load.request_batch, images=few))


def run_load(requests: Sequence[Request], images: Sequence[Image], load: Load) -> LoadOutcome:
    """Send the load, and wait for the last answer.

    Args:
        requests: what each client calls; one for all, or one a client.
        images: at least one.
        load: how much.
    """
    clients = _Clients(requests, images, load)
    try:
        wall_s, cpu_s = in_clients(load.clients, clients.work)
    finally:
        # After Ctrl-C clients finish the request that they have begun.
        clients.is_stopped = True
    return LoadOutcome(
        load,
        sum(images for kept in clients.ends for _, images in kept),
        sum(clients.failures, Counter()),
        tuple(sorted(chain.from_iterable(clients.latencies_ms))),
        tuple(chain.from_iterable(clients.ends)),
        wall_s,
        cpu_s,
    )


class _Clients:
    """The clients of one run; each writes lists of its own, so that none waits for another."""

    def __init__(self, requests: Sequence[Request], images: Sequence[Image], load: Load) -> None:
        self.is_stopped = False
        self._requests = requests
        self._images = images
        self._load = load
        # Taken by all clients: a faster one sends more of them.
        self._numbers = count(0, load.request_batch)
        self.failures: list[Counter[str]] = [Counter() for _ in range(load.clients)]
        self.latencies_ms: list[list[float]] = [[] for _ in range(load.clients)]
        self.ends: list[list[tuple[float, int]]] = [[] for _ in range(load.clients)]

    def work(self, client: int) -> None:
        """What one of them does."""
        load, request = self._load, self._requests[client % len(self._requests)]
        choice = random.Random(client)  # noqa: S311 (no secret)
        size, most = load.request_batch, load.images or sys.maxsize
        end_s = begin_s = time.perf_counter()
        stop_s = begin_s + (load.duration_s or math.inf)
        while end_s < stop_s and not self.is_stopped:
            number = next(self._numbers)
            if (left := most - number) <= 0:
                return
            images = self._chosen(number, min(size, left), choice)
            start_s = time.perf_counter()
            try:
                failed = request(images)
            except Exception as error:  # noqa: BLE001 (whatever a user's function raises)
                failed = [in_one_line(error)] * len(images)
            end_s = time.perf_counter()
            self.ends[client].append((end_s - begin_s, len(images) - len(failed)))
            self.failures[client].update(failed)
            if not failed:
                self.latencies_ms[client].append((end_s - start_s) * 1000)

    def _chosen(self, number: int, size: int, choice: random.Random) -> list[Image]:
        """The images of the request that begins with that number."""
        if not self._load.in_order:
            return choice.choices(self._images, k=size)
        return [self._images[i % len(self._images)] for i in range(number, number + size)]
