"""What is simulated of large clusters, and the file that keeps it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from loadtest.records import machine
from scaling.costs import Costs
from scaling.json_file import read_json
from scaling.plan import Demand, make_plan
from scaling.replica import ReplicaSettings
from scaling.simulation import OWN, PERFECT, REPORTED, Cluster, Load, described, simulate

FILE = "simulation.json"
REPLICAS = 1000
FRONT_ENDS = 8
SERVER = ReplicaSettings(instances=1, largest=4, batch_ms=20.0, image_ms=2.0)
"""A quarter of the times of the servers that are measured, so that 1,000 serve 100,000 images/s."""
LOADS = (0.5, 0.7, 0.9)
REPORTS_MS = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
INSTANCES = (1, 2, 4, 8, 16)
FRONT_END_COUNTS = (1, 8, 64, 256)
GPUS = (1, 2, 4, 8)
SLOW_SHARE, SLOW_TIMES = 0.1, 2.0
ROUTINGS: tuple[tuple[str, str, float], ...] = (
    ("random", PERFECT, 0.0),
    ("round robin", PERFECT, 0.0),
    ("two choices", OWN, 0.0),
    ("least", OWN, 0.0),
    ("two choices", REPORTED, 30.0),
    ("least", REPORTED, 30.0),
    ("two choices", PERFECT, 0.0),
    ("least", PERFECT, 0.0),
)
"""Rule, view, and ms between two reports."""
_WINDOW_S = 0.3

Scenario = tuple[str, Cluster, Load]


def _cluster(routing: tuple[str, str, float], **changed: Any) -> Cluster:
    rule, view, report_ms = routing
    base = Cluster(REPLICAS, SERVER, rule, view, report_ms, FRONT_ENDS)
    return replace(base, **changed)


def _load(cluster: Cluster, share: float, warmup_s: float = 0.3, **changed: Any) -> Load:
    rate = share * cluster.images_per_s
    return replace(Load(images_per_s=rate, warmup_s=warmup_s, window_s=_WINDOW_S), **changed)


def scenarios(costs: Costs) -> Iterator[Scenario]:
    """All that is simulated, with the names of the groups that tables show.

    Images take the measured time from front end to replica and back; none where it is not measured.
    """
    hop_ms = costs.hop_latency_ms.value
    hops_ms = () if hop_ms is None else (hop_ms,)
    for group, cluster, load in _scenarios(costs):
        yield group, replace(cluster, hops_ms=hops_ms), load


def _scenarios(costs: Costs) -> Iterator[Scenario]:
    for share in LOADS:
        for routing in ROUTINGS:
            cluster = _cluster(routing)
            yield "rules", cluster, _load(cluster, share)
    for report_ms in REPORTS_MS:
        for rule in ("two choices", "least"):
            cluster = _cluster((rule, REPORTED, report_ms))
            yield "reports", cluster, _load(cluster, 0.8, max(0.3, 1.1 * report_ms / 1000))
    for front_ends in FRONT_END_COUNTS:
        for rule in ("round robin", "two choices", "least"):
            cluster = _cluster((rule, OWN, 0.0), front_ends=front_ends)
            yield "front ends", cluster, _load(cluster, 0.8)
    for routing in ROUTINGS:
        cluster = _cluster(routing, slow_share=SLOW_SHARE, slow_times=SLOW_TIMES)
        yield "unequal", cluster, _load(cluster, 0.7, 0.8)
    for instances in INSTANCES:
        for routing in (ROUTINGS[0], ROUTINGS[2], ROUTINGS[-1]):
            cluster = _cluster(
                routing,
                replicas=REPLICAS // instances,
                replica=replace(SERVER, instances=instances),
            )
            yield "sizes", cluster, _load(cluster, 0.8)
    for routing, timeout_ms in (
        *((ROUTINGS[n], 0.0) for n in (0, 2, -1)),
        (ROUTINGS[2], 200.0),
    ):
        cluster = _cluster(routing)
        # 0.3 times what can be served fill a queue of 450 ms within 1.5 s.
        yield "overload", cluster, _load(cluster, 1.3, 1.5, timeout_ms=timeout_ms)
    yield from _gpus(costs)
    yield from _cores(costs)


def _gpus(costs: Costs) -> Iterator[Scenario]:
    """The plan's GPUs at its demand, as replicas of one or more of them."""
    demand = Demand()
    gpus = make_plan(costs, costs.gpu, demand).gpus
    gpu = ReplicaSettings(1, costs.largest_batch, costs.batch_ms.known, costs.batch_image_ms.known)
    for size in GPUS:
        # As many GPUs as the plan has, or the few more that make whole replicas.
        replicas = -(-gpus // size)
        for routing in (ROUTINGS[0], ROUTINGS[1], ROUTINGS[3], ROUTINGS[-1]):
            cluster = _cluster(routing, replicas=replicas, replica=replace(gpu, instances=size))
            load = Load(images_per_s=demand.images_per_s, warmup_s=0.2, window_s=_WINDOW_S)
            yield "GPUs", cluster, load


def _cores(costs: Costs) -> Iterator[Scenario]:
    """1,000 hosts of 2 cores, which do not batch."""
    server = costs.cpu_hosts[-1]
    image_ms = 1000 * server.cores / server.images_per_s.known
    cores = ReplicaSettings(server.cores, 1, 0.0, image_ms)
    for routing in (ROUTINGS[0], ROUTINGS[1], ROUTINGS[2], ROUTINGS[3], ROUTINGS[-1]):
        cluster = _cluster(routing, replica=cores)
        yield "cores", cluster, _load(cluster, 0.7, 0.3)


def run_study(costs: Costs, folder: Path, command: str, tell: Callable[[str], None]) -> None:
    """Simulate all and write it; the same code and results give the same rows.

    Args:
        costs: of the GPUs' and the cores' scenarios.
        folder: that gets FILE.
        command: for the record.
        tell: gets a line for each scenario.
    """
    head: dict[str, Any] = {
        "kind": "scaling_simulation",
        "command": command,
        "started": machine.utc_now(),
        "source": machine.describe_source(),
    }
    rows = []
    start_s = time.monotonic()
    for group, cluster, load in scenarios(costs):
        began_s = time.monotonic()
        row = simulate(cluster, load).row()
        took_s = round(time.monotonic() - began_s, 2)
        tell(f"{group}: {cluster.routing}, {cluster.replicas} replicas: {took_s:g} s")
        settings = described(cluster, load)
        rows.append({"group": group, **settings, "row": row})
    head["took_s"] = round(time.monotonic() - start_s, 1)
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({**head, "rows": rows}, indent=1)
    (folder / FILE).write_text(text + "\n", encoding="utf-8")


def read_study(folder: Path) -> dict[str, Any]:
    """What `run_study` wrote, with each row's rule and view in words.

    Raises:
        ScalingError: there is none, or it is damaged.
    """
    document: dict[str, Any] = read_json(folder / FILE, "python -m scaling simulate")
    for row in document["rows"]:
        replica = ReplicaSettings(**row["cluster"]["replica"])
        row["routing"] = Cluster(**{**row["cluster"], "replica": replica}).routing
    return document
