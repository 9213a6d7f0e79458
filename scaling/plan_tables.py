"""The arithmetic as tables in Markdown."""

from __future__ import annotations

from collections.abc import Callable

from interfaces.markdown import Table, aligned_table
from loadtest.records.metrics import percent
from scaling.costs import Costs, Measured
from scaling.plan import (
    BALANCERS,
    CHANGES,
    CHOICES,
    CLIENTS,
    FRONT_ENDS,
    GPU,
    REPLICAS,
    Demand,
    Plan,
    make_plan,
    replica_limits,
)

NOT_YET = "not measured yet"


def costs_table(costs: Costs) -> Table:
    """What an image costs, with sources."""
    gpu, fast = costs.gpu, costs.faster_gpu
    rows: list[tuple[str, Measured, Callable[[float], str]]] = [
        ("ResNet-50 on one H200, decoding on it", gpu.images_per_s, _rate),
        ("the same on a faster machine", fast.images_per_s, _rate),
        ("the same on one H100", costs.h100.images_per_s, _rate),
        ("two GPUs of a host, of twice one", costs.second_gpu, lambda share: percent(100 * share)),
        ("CPU of that server", gpu.cpu_ms, _ms),
        ("CPU of the server, decoding on the CPU", costs.cpu_decode.cpu_ms, _ms),
    ]
    rows += [
        (f"EfficientNet-Lite0 on {server.cores} cores", server.images_per_s, _rate)
        for server in costs.cpu_hosts
    ]
    rows += [
        ("CPU of a front end", costs.front_end_cpu_ms, _ms),
        ("CPU of the hop to a replica", costs.hop_cpu_ms, _ms),
        ("latency of the hop and back", costs.hop_latency_ms, _ms),
        ("CPU of HAProxy", costs.balancer_cpu_ms, _ms),
        ("CPU of a Thrift client", gpu.client_cpu_ms, _ms),
        ("bytes of an image", costs.image_bytes, lambda value: f"{value / 1000:.1f} KB"),
        ("a batch on an H200, whatever is in it", costs.batch_ms, _ms),
        ("each image of it", costs.batch_image_ms, _ms),
    ]
    return aligned_table(
        ["what", "an image, or a host", "row", "results/"],
        [
            (name, NOT_YET if it.value is None else show(it.value), it.how, it.source)
            for name, it, show in rows
        ],
    )


def plan_table(plan: Plan) -> Table:
    """How many of everything, and how full that is."""
    rows = []
    for part in plan.parts:
        tightest = part.tightest
        spare = plan.demand.spare if part.count > part.needed else 0
        rows.append(
            (
                part.name,
                part.count,
                f"{part.needed} + {part.count - part.needed}",
                tightest,
                f"{part.limits[tightest]:,.0f}",
                percent(100 * part.use_of(tightest)),
                percent(100 * part.use_of(tightest, spare)),
                ", ".join(part.unknown) or "-",
            )
        )
    return aligned_table(
        [
            *("kind", "count", "needed + spare", "tightest", "images/s of one"),
            *("use", "one failed", NOT_YET),
        ],
        rows,
    )


def fills_table(plan: Plan) -> Table:
    """What is full first as the load grows and nothing is added."""
    return aligned_table(
        ["", "what", "full at images/s", "times the demand"],
        [
            (
                number,
                f"{part}: {resource}",
                f"{rate:,.0f}",
                f"{rate / plan.demand.images_per_s:.1f}",
            )
            for number, (rate, part, resource) in enumerate(plan.fills, 1)
        ],
    )


def ladder_table(costs: Costs, demand: Demand) -> Table:
    """What limits one replica host next, if its GPU part becomes faster."""
    limits = replica_limits(costs, costs.gpu, demand)
    first = limits[GPU]
    return aligned_table(
        ["one replica host", "images/s at most", "times the GPU"],
        [
            (name, f"{rate:,.0f}", f"{rate / first:.1f}")
            for name, rate in sorted(limits.items(), key=lambda pair: pair[1])
        ],
    )


def choices_table(costs: Costs, demand: Demand) -> Table:
    """What each choice costs."""
    rows = []
    for choice in CHOICES:
        server = choice.server(costs)
        plan = make_plan(costs, server, choice.demand(demand))
        parts = (REPLICAS, FRONT_ENDS, BALANCERS)
        rows.append(
            (
                choice.name,
                plan.gpus or "-",
                *(plan.count(name) or "-" for name in parts),
                plan.hosts,
                f"{demand.images_per_s * server.cpu_ms.known / 1000:,.0f}",
                plan.parts[0].tightest,
            )
        )
    return aligned_table(
        [
            *("choice", "GPUs", *(name for name in (REPLICAS, FRONT_ENDS, BALANCERS))),
            *("hosts", "cores busy in replicas", "tightest of a replica"),
        ],
        rows,
    )


def changes_table(costs: Costs, demand: Demand) -> Table:
    """What the plan needs if one number doubles."""
    rows = []
    for name, change in CHANGES:
        changed, asked = change(costs, demand)
        plan = make_plan(changed, changed.gpu, asked)
        counts = [plan.count(kind) for kind in (REPLICAS, FRONT_ENDS, BALANCERS, CLIENTS)]
        first = ": ".join(plan.fills[0][1:])
        rows.append((name, *counts, first))
    return aligned_table(
        ["doubles", REPLICAS, FRONT_ENDS, BALANCERS, CLIENTS, "full first"],
        rows,
    )


def summary(plan: Plan) -> str:
    """The plan in a sentence."""
    demand = plan.demand
    counted = ", ".join(f"{part.count} {part.name}" for part in plan.parts if part.name != CLIENTS)
    gpus = f"**{plan.gpus} GPUs**: " * bool(plan.gpus)
    front = f" {plan.front_end_processes} front-end processes." * bool(plan.front_end_processes)
    return (
        f"{demand.images_per_s:,.0f} images a second need {gpus}{counted}, with everything at "
        f"{100 * demand.use:g} % at most while {demand.spare} of each kind has failed; "
        f"{plan.count(CLIENTS)} client processes send them.{front} "
        f"{plan.network_gbit_s:.0f} Gbit/s cross every level.\n"
    )


def _rate(value: float) -> str:
    return f"{value:,.0f} images/s"


def _ms(value: float) -> str:
    return f"{value:.3f} ms"
