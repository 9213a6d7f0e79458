"""A cluster in SimPy: arrivals, front ends that route, replicas that batch."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Generator, Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import simpy

from loadtest.load.arrivals import poisson
from measurement.statistics import percentile
from scaling.errors import ScalingError
from scaling.replica import ANSWERED, EXPIRED, REFUSED, Image, Replica, ReplicaSettings
from scaling.routing import BLIND, RULES, CountedView, ReportedView, View

OWN, PERFECT, REPORTED = "own calls", "perfect", "reported"
VIEWS = (OWN, PERFECT, REPORTED)


@dataclass(frozen=True)
class Cluster:
    """What is simulated.

    Attributes:
        replicas: how many there are.
        replica: what each of them is.
        rule: a name of RULES.
        view: what front ends know: their own calls, all calls at once, or reports.
        report_ms: time between two reports; each front end gets them at times of its own.
        front_ends: each image comes to one of them in turn.
        hops_ms: of an image from front end to replica and back, half each way: one of these by
            chance; empty for no time.
        slow_share: share of the replicas whose batches take `slow_times` as long.
        slow_times: how many times.
    """

    replicas: int
    replica: ReplicaSettings
    rule: str = "two choices"
    view: str = PERFECT
    report_ms: float = 0.0
    front_ends: int = 1
    hops_ms: tuple[float, ...] = ()
    slow_share: float = 0.0
    slow_times: float = 1.0

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise ScalingError(f"no routing rule {self.rule!r}; known: {', '.join(RULES)}")
        if self.view not in VIEWS:
            raise ScalingError(f"no view {self.view!r}; known: {', '.join(VIEWS)}")
        if self.view == REPORTED and self.report_ms <= 0:
            raise ScalingError("reports need a time between two of them: report_ms above 0")

    @property
    def images_per_s(self) -> float:
        """What all replicas serve with full batches, if none is slow."""
        return self.replicas * self.replica.images_per_s

    @property
    def routing(self) -> str:
        """Rule and view in words."""
        if self.rule in BLIND:
            return self.rule
        every = f" every {self.report_ms:g} ms" if self.view == REPORTED else ""
        return f"{self.rule} ({self.view}{every})"


@dataclass(frozen=True)
class Load:
    """Arrivals: an open loop of a rate, or clients that wait for their answers.

    Attributes:
        images_per_s: of the open loop; 0 where clients wait.
        clients: that wait; 0 for an open loop.
        warmup_s: images that were due before are not counted.
        window_s: length of what is counted after it.
        timeout_ms: what each image may take; 0 for ever.
        seed: decides what is random: as text, what the load test's arrivals take.
    """

    images_per_s: float = 0.0
    clients: int = 0
    warmup_s: float = 0.5
    window_s: float = 1.0
    timeout_ms: float = 0.0
    seed: str = "0"


@dataclass
class Outcome:
    """What came of the images that were due in the window.

    Attributes:
        due: how many there were.
        outcomes: of all images, those outside of the window, too.
        arrivals: of all images.
        latencies_ms: of answered ones, from the time at which each was due; ascending.
        answered_in_window: answers that came within the window, whenever their images were due.
        window_s: its length.
        sizes: images of a batch to batches.
        busy_share: of the instances' time, from the first arrival to the window's end.
    """

    due: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    arrivals: int = 0
    latencies_ms: list[float] = field(default_factory=list)
    counted: Counter[str] = field(default_factory=Counter)
    answered_in_window: int = 0
    window_s: float = 0.0
    sizes: Counter[int] = field(default_factory=Counter)
    busy_share: float = 0.0

    @property
    def images_per_s(self) -> float:
        """Answers within the window, a second."""
        return self.answered_in_window / self.window_s

    @property
    def mean_batch(self) -> float:
        """Images of a batch in the mean."""
        batches = self.sizes.total()
        return sum(n * count for n, count in self.sizes.items()) / batches if batches else 0.0

    def row(self) -> dict[str, Any]:
        """The numbers that tables show; None where nothing was answered."""
        ordered = self.latencies_ms
        tps = {
            f"tp{q:g}_ms".replace(".", "_"): percentile(ordered, q / 100) if ordered else None
            for q in (50, 99, 99.9)
        }
        return {
            "due": self.due,
            "images_per_s": self.images_per_s,
            **tps,
            "mean_batch": self.mean_batch,
            "busy_share": self.busy_share,
            "refused_share": self.counted[REFUSED] / self.due if self.due else 0.0,
            "expired_share": self.counted[EXPIRED] / self.due if self.due else 0.0,
        }


class _Simulation:
    def __init__(self, cluster: Cluster, load: Load, arrivals: Iterable[float] | None) -> None:
        self.env = simpy.Environment()
        self.outcome = Outcome(window_s=load.window_s)
        self._load = load
        self._cluster = cluster
        self._end_s = load.warmup_s + load.window_s
        self._arrivals = arrivals
        self._truth = CountedView(cluster.replicas)
        self._views = [self._view(number) for number in range(cluster.front_ends)]
        self._rules = [
            RULES[cluster.rule](cluster.replicas, f"{load.seed}/{number}/routing")
            for number in range(cluster.front_ends)
        ]
        self._replicas = [
            Replica(
                self.env, self._settings(number), self._listener(number), f"{load.seed}/{number}"
            )
            for number in range(cluster.replicas)
        ]
        self._ways_s = [ms / 2000 for ms in cluster.hops_ms]
        self._draw = random.Random(f"{load.seed}/hops")  # noqa: S311 (guards no secret)
        self._busy_at_end_s = 0.0

    def _settings(self, number: int) -> ReplicaSettings:
        cluster, replica = self._cluster, self._cluster.replica
        if number >= cluster.slow_share * cluster.replicas:
            return replica
        times = cluster.slow_times
        return replace(
            replica, batch_ms=times * replica.batch_ms, image_ms=times * replica.image_ms
        )

    def run(self) -> Outcome:
        """Simulate until the last image that arrived has its outcome."""
        if self._load.clients:
            for _ in range(self._load.clients):
                self._arrive(0.0)
        else:
            self.env.process(self._open_loop())
        self.env.process(self._read_busy())
        # Views that are refreshed for ever keep the clock going: so until all is answered.
        while not self._is_over():
            self.env.step()
        outcome = self.outcome
        for replica in self._replicas:
            outcome.sizes += replica.sizes
        capacity_s = self._cluster.replicas * self._cluster.replica.instances * self._end_s
        outcome.busy_share = self._busy_at_end_s / capacity_s
        outcome.latencies_ms.sort()
        return outcome

    def _is_over(self) -> bool:
        outcome = self.outcome
        return self.env.now > self._end_s and outcome.outcomes.total() == outcome.arrivals

    def _view(self, number: int) -> View:
        cluster = self._cluster
        if cluster.view == PERFECT or cluster.rule in BLIND:
            return self._truth
        if cluster.view == OWN:
            return CountedView(cluster.replicas)
        view = ReportedView(self._truth)
        first_s = cluster.report_ms / 1000 * (number + 1) / cluster.front_ends
        self.env.process(self._refresh(view, first_s))
        return view

    def _refresh(self, view: ReportedView, first_s: float) -> Generator[simpy.Event, Any, None]:
        yield self.env.timeout(first_s)
        while True:
            view.refresh()
            yield self.env.timeout(self._cluster.report_ms / 1000)

    def _read_busy(self) -> Generator[simpy.Event, Any, None]:
        """Read at the window's end how long the instances have worked."""
        yield self.env.timeout(self._end_s)
        self._busy_at_end_s = sum(replica.busy_s() for replica in self._replicas)
        # So that a step is left, and the clock beyond the end, where nothing else happens.
        yield self.env.timeout(1e-9)

    def _open_loop(self) -> Generator[simpy.Event, Any, None]:
        load, env = self._load, self.env
        times = self._arrivals
        if times is None:
            times = poisson(load.images_per_s, 0.0, f"{load.seed}/0/arrivals")
        for due_s in times:
            if due_s >= self._end_s:
                return
            yield env.timeout(max(0.0, due_s - env.now))
            self._arrive(due_s)

    def _arrive(self, due_s: float) -> None:
        outcome, load = self.outcome, self._load
        front_end = outcome.arrivals % self._cluster.front_ends
        deadline_s = due_s + load.timeout_ms / 1000 if load.timeout_ms else math.inf
        image = Image(outcome.arrivals, due_s, front_end, deadline_s)
        outcome.arrivals += 1
        if self._is_counted(image):
            outcome.due += 1
        view = self._views[front_end]
        replica = self._rules[front_end](view)
        view.sent(replica)
        if view is not self._truth:
            self._truth.sent(replica)
        if self._ways_s:
            self._after_way(lambda _: self._replicas[replica].offer(image))
        else:
            self._replicas[replica].offer(image)

    def _after_way(self, callback: Callable[[simpy.Event], None]) -> None:
        """Call it when half of a hop is over."""
        crossed = self.env.timeout(self._draw.choice(self._ways_s))
        assert crossed.callbacks is not None  # noqa: S101 (it has not happened yet)
        crossed.callbacks.append(callback)

    def _is_counted(self, image: Image) -> bool:
        return self._load.warmup_s <= image.due_s < self._end_s

    def _listener(self, replica: int) -> Any:
        def came_out(image: Image, outcome: str) -> None:
            if self._ways_s:
                self._after_way(lambda _: self._come_back(replica, image, outcome))
            else:
                self._come_back(replica, image, outcome)

        return came_out

    def _come_back(self, replica: int, image: Image, kind: str) -> None:
        now_s, load, outcome = self.env.now, self._load, self.outcome
        view = self._views[image.front_end]
        view.answered(replica)
        if view is not self._truth:
            self._truth.answered(replica)
        outcome.outcomes[kind] += 1
        if self._is_counted(image):
            outcome.counted[kind] += 1
            if kind == ANSWERED:
                outcome.latencies_ms.append(1000 * (now_s - image.due_s))
        if kind == ANSWERED and load.warmup_s <= now_s < self._end_s:
            outcome.answered_in_window += 1
        if load.clients and now_s < self._end_s:
            # Not within this call, which may be that of the replica with its batch half told.
            soon = self.env.timeout(0)
            assert soon.callbacks is not None  # noqa: S101 (it has not happened yet)
            soon.callbacks.append(lambda _: self._arrive(now_s))


def simulate(cluster: Cluster, load: Load, arrivals: Iterable[float] | None = None) -> Outcome:
    """What becomes of a load.

    Args:
        cluster: what serves.
        load: what comes.
        arrivals: the times of an open loop in s, ascending; None for Poisson arrivals.

    Raises:
        ScalingError: no load.
    """
    if not load.clients and arrivals is None and load.images_per_s <= 0:
        raise ScalingError("a load needs images_per_s, clients or arrivals")
    return _Simulation(cluster, load, arrivals).run()


def described(cluster: Cluster, load: Load) -> dict[str, Any]:
    """All settings, for records."""
    return {"cluster": asdict(cluster), "load": asdict(load)}
