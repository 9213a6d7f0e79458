"""The simulation beside queues whose results are known, and beside a plain loop."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from statistics import fmean, stdev

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtest.load.arrivals import poisson
from pipeline.runtime.batch_rule import BatchRule
from scaling.errors import ScalingError
from scaling.replica import ReplicaSettings
from scaling.routing import RULES
from scaling.simulation import OWN, PERFECT, REPORTED, VIEWS, Cluster, Load, simulate

# Takes one image at a time, and lets any number wait.
SINGLE = ReplicaSettings(1, 1, 0.0, 10.0, max_queue_ms=0, max_queue=10**9)
SEEDS = range(8)


def _mean_ms(cluster: Cluster, load: Load) -> tuple[float, float]:
    """The mean latency of several seeds, and how far a 99.9 % interval reaches from it."""
    means = [fmean(simulate(cluster, replace(load, seed=str(seed))).latencies_ms) for seed in SEEDS]
    # Student's t for 7 degrees of freedom.
    return fmean(means), 5.41 * stdev(means) / math.sqrt(len(means))


def _exponential(mean_ms: float) -> tuple[float, ...]:
    """Its quantiles at even distances, so that their mean is right, too."""
    n = 2000
    values = [-mean_ms * math.log(1 - (k + 0.5) / n) for k in range(n)]
    return tuple(value * mean_ms / fmean(values) for value in values)


def _m_d_c_ms(rate_per_s: float, service_ms: float, servers: int) -> float:
    """Mean time in M/D/c: what is in it a service time later follows from what is in it now."""
    most = 150
    mean = rate_per_s * service_ms / 1000
    logs = [k * math.log(mean) - mean - math.lgamma(k + 1) for k in range(most)]
    arrivals = np.exp(logs)
    in_system = np.zeros(most)
    in_system[0] = 1.0
    for _ in range(500):
        left = np.concatenate([[in_system[: servers + 1].sum()], in_system[servers + 1 :]])
        in_system = np.convolve(left, arrivals)[:most]
    # Little's law
    return 1000 * float(in_system @ np.arange(most)) / rate_per_s


@pytest.mark.parametrize("load", [0.5, 0.7])
def test_one_server_with_exponential_times_is_m_m_1(load: float) -> None:
    server = replace(SINGLE, image_ms=0.0, extras_ms=_exponential(10.0))
    found, reach = _mean_ms(Cluster(1, server), Load(100 * load, warmup_s=2, window_s=25))
    assert abs(found - 10 / (1 - load)) < reach
    assert reach < 0.5 * found


@pytest.mark.parametrize(("instances", "load"), [(1, 0.7), (2, 0.8), (4, 0.8)])
def test_several_instances_without_batches_are_m_d_c(instances: int, load: float) -> None:
    server = replace(SINGLE, instances=instances)
    rate = load * 100 * instances
    found, reach = _mean_ms(Cluster(1, server), Load(rate, warmup_s=1, window_s=1500 / rate))
    assert abs(found - _m_d_c_ms(rate, 10, instances)) < reach
    assert reach < 0.3 * found


def test_random_routing_makes_queues_that_know_nothing_of_each_other() -> None:
    load = 0.7
    cluster = Cluster(10, SINGLE, "random", front_ends=3)
    found, reach = _mean_ms(cluster, Load(1000 * load, warmup_s=0.5, window_s=1.5))
    assert abs(found - _m_d_c_ms(100 * load, 10, 1)) < reach


def test_a_lone_image_takes_its_batch_and_its_way() -> None:
    cluster = Cluster(2, ReplicaSettings(1, 4, 20.0, 2.0), hops_ms=(3.0,))
    (latency_ms,) = simulate(cluster, Load(warmup_s=0), [0.1]).latencies_ms
    assert latency_ms == pytest.approx(25)


def test_clients_that_wait_obey_littles_law() -> None:
    cluster = Cluster(2, ReplicaSettings(2, 4, 10.0, 1.0), hops_ms=(0.5, 1.0))
    found = simulate(cluster, Load(clients=13, warmup_s=0.5, window_s=5))
    assert found.images_per_s * fmean(found.latencies_ms) / 1000 == pytest.approx(13, rel=0.02)


def test_what_a_front_end_knows_shortens_the_tail() -> None:
    load = Load(0.8 * 40 * 1000 / 7, warmup_s=0.2, window_s=0.6)
    server = ReplicaSettings(1, 4, 20.0, 2.0)

    def tp99_ms(rule: str, view: str) -> float:
        found = simulate(Cluster(40, server, rule, view, front_ends=8), load)
        return float(found.row()["tp99_ms"])

    perfect, own = tp99_ms("two choices", PERFECT), tp99_ms("two choices", OWN)
    assert tp99_ms("least", PERFECT) < perfect < own < tp99_ms("random", PERFECT)


def test_slow_replicas_get_less_where_front_ends_look() -> None:
    server = ReplicaSettings(1, 4, 20.0, 2.0)
    load = Load(0.8 * 10 * server.images_per_s, warmup_s=0.5, window_s=0.5)

    def tp99_ms(rule: str) -> float:
        cluster = Cluster(10, server, rule, slow_share=0.2, slow_times=2.0)
        return float(simulate(cluster, load).row()["tp99_ms"])

    assert 2 * tp99_ms("least") < tp99_ms("round robin")


@settings(max_examples=40, deadline=None)
@given(
    rule=st.sampled_from(sorted(RULES)),
    view=st.sampled_from(VIEWS),
    replicas=st.integers(1, 5),
    front_ends=st.integers(1, 3),
    instances=st.integers(1, 3),
    largest=st.integers(1, 4),
    smallest=st.integers(1, 2),
    load=st.floats(0.1, 3.0),
    timeout_ms=st.sampled_from([0.0, 30.0, 200.0]),
    max_queue_ms=st.sampled_from([0, 40]),
    hops_ms=st.sampled_from([(), (2.0, 5.0)]),
    seed=st.integers(0, 9),
)
def test_every_image_has_one_outcome(
    rule: str,
    view: str,
    replicas: int,
    front_ends: int,
    instances: int,
    largest: int,
    smallest: int,
    load: float,
    timeout_ms: float,
    max_queue_ms: int,
    hops_ms: tuple[float, ...],
    seed: int,
) -> None:
    server = ReplicaSettings(
        *(instances, largest, 10.0, 1.0, min(smallest, largest)),
        max_queue_ms=max_queue_ms,
        max_queue=20,
    )
    cluster = Cluster(replicas, server, rule, view, 7.0, front_ends, hops_ms)
    rate = load * cluster.images_per_s
    wanted = Load(rate, warmup_s=0.05, window_s=0.2, timeout_ms=timeout_ms, seed=str(seed))
    found = simulate(cluster, wanted)
    assert found.outcomes.total() == found.arrivals
    assert found.counted.total() == found.due <= found.arrivals
    assert len(found.latencies_ms) == found.counted["answered"]
    assert sum(n * batches for n, batches in found.sizes.items()) == found.outcomes["answered"]
    assert max(found.sizes, default=0) <= largest
    # Of an instance that is not idle, at most all of its time.
    assert 0 <= found.busy_share <= 1 + 1e-9


def test_more_than_can_be_served_is_refused_and_the_rest_waits_no_longer_than_allowed() -> None:
    server = ReplicaSettings(1, 4, 20.0, 2.0, max_queue_ms=100)
    cluster = Cluster(5, server, "two choices")
    found = simulate(cluster, Load(2 * cluster.images_per_s, warmup_s=1, window_s=2)).row()
    assert found["images_per_s"] == pytest.approx(cluster.images_per_s, rel=0.03)
    assert found["refused_share"] == pytest.approx(0.5, abs=0.05)
    assert found["tp99_ms"] < 100 + 2 * server.batch_time_ms(4)


def test_a_seed_gives_the_same_again_and_another_one_something_else() -> None:
    cluster = Cluster(9, ReplicaSettings(1, 4, 20.0, 2.0), "least", REPORTED, 5.0, 3)
    load = Load(0.8 * cluster.images_per_s, warmup_s=0.1, window_s=0.5)
    first, again, other = (simulate(cluster, replace(load, seed=s)).row() for s in ("1", "1", "2"))
    assert first == again != other


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"rule": "fastest"}, "no routing rule 'fastest'; known: random"),
        ({"view": "clear"}, "no view 'clear'; known: own calls"),
        ({"view": REPORTED}, "report_ms above 0"),
    ],
)
def test_what_is_no_cluster_is_told(changed: dict[str, str], message: str) -> None:
    with pytest.raises(ScalingError, match=message):
        Cluster(2, SINGLE, **changed)  # type: ignore[arg-type]


def test_no_load_is_told() -> None:
    with pytest.raises(ScalingError, match="images_per_s, clients or arrivals"):
        simulate(Cluster(2, SINGLE), Load())


class _Order:
    """Items that wait, as `BatchRule` sees them."""

    def __init__(self) -> None:
        self.items: list[float] = []

    @property
    def rows(self) -> int:
        return len(self.items)

    def oldest_s(self) -> float:
        return self.items[0]

    def take(self, largest: int, most_charged: int) -> list[float]:  # noqa: ARG002 (one row each)
        taken, self.items = self.items[:largest], self.items[largest:]
        return taken


def _batches_of_a_loop(server: ReplicaSettings, arrivals: Sequence[float]) -> dict[int, int]:
    """Sizes of the batches that the rule lets leave in a loop over events, without SimPy."""
    now_s = 0.0
    order = _Order()
    rule = BatchRule(order, server.timeout_ms, lambda: now_s)
    number = count()
    events: list[tuple[float, int, int]] = [(at_s, next(number), 0) for at_s in arrivals]
    heapq.heapify(events)
    idle = server.instances
    sizes: dict[int, int] = {}
    while events:
        now_s, _, done = heapq.heappop(events)
        if done > 0:
            rule.batch_done(done, server.batch_time_ms(done) / 1000)
            idle += 1
        elif done == 0:
            order.items.append(now_s)
            rule.missing -= 1
        while idle and order.rows:
            batch = rule.take(server.smallest, server.largest, now_s)
            if batch is None:
                at_s = rule.leaves_at_s(server.smallest)
                heapq.heappush(events, (max(at_s, now_s + 1e-9), next(number), -1))
                break
            idle -= 1
            size = len(batch)
            sizes[size] = sizes.get(size, 0) + 1
            end_s = now_s + server.batch_time_ms(size) / 1000
            heapq.heappush(events, (end_s, next(number), size))
    return sizes


@pytest.mark.parametrize("smallest", [1, 3])
@pytest.mark.parametrize("load", [0.3, 0.8, 1.2])
def test_batches_leave_as_in_a_plain_loop(smallest: int, load: float) -> None:
    server = ReplicaSettings(2, 4, 11.3, 1.7, smallest, 7.1, max_queue_ms=0, max_queue=10**6)
    rate = load * server.images_per_s
    times = poisson(rate, 0.0, f"rule {load}")
    arrivals = [next(times) for _ in range(1500)]
    load_all = Load(warmup_s=0, window_s=arrivals[-1] + 1)
    simulated = simulate(Cluster(1, server), load_all, arrivals).sizes
    assert simulated == _batches_of_a_loop(server, arrivals)
