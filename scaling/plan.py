"""From costs to counts of hosts: the arithmetic of `docs/scaling.md`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from scaling.costs import Costs, Measured, ServerCosts
from scaling.errors import ScalingError

# Of a full Ethernet frame on the wire, preamble and gap included: what TCP carries with an MTU of
# 1,500 bytes and time stamps.
_PAYLOAD_SHARE = 1448 / 1538
_FEWEST_HOSTS = 1


@dataclass(frozen=True)
class Demand:
    """What is asked, and what is decided and not measured.

    Attributes:
        images_per_s: at the busiest time.
        use: share of its limit that anything is planned to reach.
        spare: hosts of each kind that may fail with the others within `use`.
        link_gbit_s: network link of every host, as much in as out.
        front_end_cores: of a host of front ends; one process a core.
        gpus_per_host: 1 or 2: more on one host were not measured.
        has_front_ends: whether a front end forwards to replicas; else clients' connections end at
            the replicas.
        has_balancers: whether HAProxy is in front.
    """

    images_per_s: float = 100_000.0
    use: float = 0.7
    spare: int = 1
    link_gbit_s: float = 25.0
    front_end_cores: int = 16
    gpus_per_host: int = 1
    has_front_ends: bool = True
    has_balancers: bool = True

    def __post_init__(self) -> None:
        if self.images_per_s <= 0:
            raise ScalingError(f"images_per_s must be above 0, got {self.images_per_s:g}")
        if not 0 < self.use <= 1:
            raise ScalingError(f"use must be above 0 and at most 1, got {self.use:g}")
        if self.link_gbit_s <= 0:
            raise ScalingError(f"link_gbit_s must be above 0, got {self.link_gbit_s:g}")
        if self.gpus_per_host not in (1, 2):
            raise ScalingError(
                f"gpus_per_host must be 1 or 2, got {self.gpus_per_host}: more GPUs of one host "
                "were not measured"
            )


@dataclass(frozen=True)
class Part:
    """A kind of host, or of process.

    Attributes:
        name: what it is.
        limits: resource to images a second that one of them serves at most.
        needed: how many carry the load within `use`.
        count: with the spare ones.
        images_per_s: the load.
        unknown: resources that are not measured yet.
    """

    name: str
    limits: Mapping[str, float]
    needed: int
    count: int
    images_per_s: float
    unknown: tuple[str, ...] = ()

    @property
    def tightest(self) -> str:
        """The resource that is used most."""
        return min(self.limits, key=lambda name: self.limits[name])

    def use_of(self, resource: str, failed: int = 0) -> float:
        """Share of a resource that is used while so many of them have failed."""
        return self.images_per_s / (self.limits[resource] * max(1, self.count - failed))


@dataclass(frozen=True)
class Plan:
    """What a demand needs.

    Attributes:
        demand: what is asked.
        gpus: in all.
        parts: kinds of hosts, and the clients' processes.
        front_end_processes: in all; 0 without front ends.
        network_gbit_s: what crosses into each kind of host.
    """

    demand: Demand
    gpus: int
    parts: tuple[Part, ...]
    front_end_processes: int
    network_gbit_s: float

    def count(self, name: str) -> int:
        """How many of a part; 0 where the plan has none."""
        return next((part.count for part in self.parts if part.name == name), 0)

    @property
    def hosts(self) -> int:
        """All hosts, without those of clients."""
        return sum(part.count for part in self.parts if part.name != CLIENTS)

    @property
    def fills(self) -> list[tuple[float, str, str]]:
        """Images a second at which each resource that serves is full, the first one first."""
        return sorted(
            (part.count * limit, part.name, resource)
            for part in self.parts
            if part.name != CLIENTS
            for resource, limit in part.limits.items()
        )


REPLICAS, FRONT_ENDS, BALANCERS, CLIENTS = (
    "replica hosts",
    "front-end hosts",
    "HAProxy hosts",
    "client processes",
)
GPU, CORES, LINK_IN, LINK_OUT = "GPU", "cores", "link in", "link out"


def link_images_per_s(costs: Costs, gbit_s: float) -> float:
    """Images a second that fill a link in one direction."""
    return gbit_s * 1e9 / 8 * _PAYLOAD_SHARE / costs.image_bytes.known


def replica_limits(costs: Costs, server: ServerCosts, demand: Demand) -> dict[str, float]:
    """What one replica host serves at most, by resource."""
    by_cores = 1000 * server.cores / server.cpu_ms.known
    limits = {LINK_IN: link_images_per_s(costs, demand.link_gbit_s)}
    if not server.has_gpu:
        # Its throughput is what its cores serve, with all that keeps them from being full.
        return {CORES: server.images_per_s.known, **limits}
    gpus = demand.gpus_per_host
    share = costs.second_gpu.known if gpus == 2 else 1.0
    # A host with two GPUs was measured with twice the cores.
    limits[CORES] = gpus * by_cores
    if not server.waits:
        limits[GPU] = gpus * share * server.images_per_s.known
    return limits


def make_plan(costs: Costs, server: ServerCosts, demand: Demand) -> Plan:
    """How many of everything a demand needs.

    Args:
        costs: what an image costs.
        server: what a replica host is.
        demand: what is asked.
    """
    link = link_images_per_s(costs, demand.link_gbit_s)
    parts = [_part(REPLICAS, replica_limits(costs, server, demand), demand)]
    processes = 0
    if demand.has_front_ends:
        front_ms = costs.front_end_cpu_ms.known
        unknown = () if costs.hop_cpu_ms.value is not None else ("CPU of the hop",)
        limits = {
            CORES: 1000 * demand.front_end_cores / front_ms,
            LINK_IN: link,
            LINK_OUT: link,
        }
        parts.append(_part(FRONT_ENDS, limits, demand, unknown))
        processes = _ceil(demand.images_per_s * front_ms / 1000 / demand.use)
    if demand.has_balancers:
        limits = {LINK_IN: link, LINK_OUT: link}
        unknown = ("CPU of HAProxy",)
        if costs.balancer_cpu_ms.value is not None:
            limits[CORES] = 1000 * demand.front_end_cores / costs.balancer_cpu_ms.value
            unknown = ()
        parts.append(_part(BALANCERS, limits, demand, unknown))
    clients = {CORES: 1000 / server.client_cpu_ms.known}
    parts.append(_part(CLIENTS, clients, replace(demand, spare=0)))
    hosts = parts[0].count
    return Plan(
        demand=demand,
        gpus=hosts * demand.gpus_per_host if server.has_gpu else 0,
        parts=tuple(parts),
        front_end_processes=processes,
        network_gbit_s=demand.images_per_s * costs.image_bytes.known * 8 / _PAYLOAD_SHARE / 1e9,
    )


def _part(
    name: str, limits: Mapping[str, float], demand: Demand, unknown: tuple[str, ...] = ()
) -> Part:
    needed = max(_FEWEST_HOSTS, _ceil(demand.images_per_s / (demand.use * min(limits.values()))))
    return Part(name, limits, needed, needed + demand.spare, demand.images_per_s, unknown)


def _ceil(value: float) -> int:
    # A whole number that rounding has lifted by a hair is that number.
    return math.ceil(value - 1e-9)


@dataclass(frozen=True)
class Choice:
    """Another way to serve the demand.

    Attributes:
        name: what is chosen.
        server: what serves, of the costs.
        demand: what changes in the demand.
    """

    name: str
    server: Callable[[Costs], ServerCosts]
    demand: Callable[[Demand], Demand] = lambda demand: demand


CHOICES: tuple[Choice, ...] = (
    Choice("H200, GPU decode, front ends", lambda costs: costs.gpu),
    Choice("the same on the faster machine", lambda costs: costs.faster_gpu),
    Choice("H100 in their place", lambda costs: costs.h100),
    Choice(
        "two GPUs a host", lambda costs: costs.gpu, lambda demand: replace(demand, gpus_per_host=2)
    ),
    Choice("CPU decode", lambda costs: costs.cpu_decode),
    Choice(
        "no front ends: HAProxy, then replicas",
        lambda costs: costs.gpu,
        lambda demand: replace(demand, has_front_ends=False),
    ),
    Choice(
        "neither: clients choose replicas",
        lambda costs: costs.gpu,
        lambda demand: replace(demand, has_front_ends=False, has_balancers=False),
    ),
    Choice("EfficientNet-Lite0, hosts of 16 cores", lambda costs: costs.cpu_hosts[0]),
    Choice("EfficientNet-Lite0, hosts of 2 cores", lambda costs: costs.cpu_hosts[1]),
)
"""What can be decided otherwise; the first one is the plan."""


def _doubled(measured: Measured) -> Measured:
    return replace(measured, value=2 * measured.known)


def _with_gpu(costs: Costs, **changed: Any) -> Costs:
    return replace(costs, gpu=replace(costs.gpu, **changed))


CHANGES: Sequence[tuple[str, Callable[[Costs, Demand], tuple[Costs, Demand]]]] = (
    ("nothing", lambda costs, demand: (costs, demand)),
    ("images/s", lambda c, d: (c, replace(d, images_per_s=2 * d.images_per_s))),
    (
        "images/s of a GPU",
        lambda c, d: (_with_gpu(c, images_per_s=_doubled(c.gpu.images_per_s)), d),
    ),
    ("CPU of a replica an image", lambda c, d: (_with_gpu(c, cpu_ms=_doubled(c.gpu.cpu_ms)), d)),
    (
        "CPU of a front end an image",
        lambda c, d: (replace(c, front_end_cpu_ms=_doubled(c.front_end_cpu_ms)), d),
    ),
    (
        "CPU of a client an image",
        lambda c, d: (_with_gpu(c, client_cpu_ms=_doubled(c.gpu.client_cpu_ms)), d),
    ),
    ("bytes of an image", lambda c, d: (replace(c, image_bytes=_doubled(c.image_bytes)), d)),
    ("link", lambda c, d: (c, replace(d, link_gbit_s=2 * d.link_gbit_s))),
    ("spare hosts", lambda c, d: (c, replace(d, spare=2 * d.spare))),
)
"""What doubles, and what that does to costs and demand."""
