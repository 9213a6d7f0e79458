"""`scaling`: what each further replica adds, where an image takes a replica a fixed time."""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from loadtest.progress import Progress
from loadtest.records.run import Check, new_run
from tests.cluster_runs import pages
from tests.cluster_runs.load import ClusterLoad
from tests.cluster_runs.paced import paced_server
from tests.cluster_runs.ray_nodes import RayNodes
from tests.cluster_runs.results import finish
from tests.cluster_runs.served_cluster import ServedCluster, pause_s, require
from tests.robustness.checking_clients import RIGHT

COLUMNS = ("round", "replicas", "images_per_s", "failed")
_LEAST_OF_LINEAR = 0.92
_WARM_UP_S = 2.0
_READY_S = 180.0


@dataclass(frozen=True)
class ScalingSettings:
    """What `scaling` does; attributes are the options of the same name."""

    counts: tuple[int, ...]
    rounds: int
    duration_s: float
    nodes: int
    clients_per_replica: int
    item_ms: float
    port: int
    seed: int


def scaling(settings: ScalingSettings, folder: Path, command: str, progress: Progress) -> None:
    """Measure it and write the results.

    Raises:
        LoadTestError: a check failed, or a part does not start.
    """
    record = new_run(pages.SCALING, command, asdict(settings))
    rows: list[tuple[int, int, float, int]] = []
    most = max(settings.counts)
    cpus = -(-most // settings.nodes)
    with ExitStack() as running:
        temporary = running.enter_context(
            tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True)
        )
        place = Path(temporary)
        nodes = running.enter_context(RayNodes(place, settings.port + 10, cpus))
        progress.line(f"cluster: starting Ray's head and {settings.nodes} nodes")
        nodes.start_head()
        for _ in range(settings.nodes):
            nodes.add()
        arguments = paced_server(place, settings.item_ms)
        for number in range(1, settings.rounds + 1):
            # Each count is as often early as late.
            for count in settings.counts if number % 2 else settings.counts[::-1]:
                rate, failed = _window(settings, nodes, arguments, count, place)
                rows.append((number, count, round(rate, 3), failed))
                progress.line(f"cluster: {count} replicas: {rate:.2f} images/s")
    one_per_s = _median_per_s(rows, min(settings.counts)) / min(settings.counts)
    found = [
        {
            "replicas": count,
            "images_per_s": round(_median_per_s(rows, count), 3),
            "of_linear": round(_median_per_s(rows, count) / (count * one_per_s), 4),
            "windows": sum(row[1] == count for row in rows),
        }
        for count in sorted(settings.counts)
    ]
    checks = [
        Check(
            f"{one['replicas']} replicas: throughput over that of as many single ones",
            f"at least {_LEAST_OF_LINEAR:g}",
            f"{one['of_linear']:.3f} ({one['images_per_s']:.2f} images/s)",
            one["of_linear"] >= _LEAST_OF_LINEAR,
        )
        for one in found
    ]
    failed = sum(row[3] for row in rows)
    checks.append(Check("all answers are right", "0 others", str(failed), not failed))
    progress.end_line()
    finish(record, folder, checks, {"scaling": found}, {"windows": (COLUMNS, rows)})


def _window(
    settings: ScalingSettings, nodes: RayNodes, arguments: list[str], count: int, place: Path
) -> tuple[float, int]:
    """Images a second with so many replicas, and how many answers were not right."""
    with ServedCluster(nodes, arguments, count, [settings.port], place) as cluster:
        cluster.start()
        require(cluster.wait_for(count, _READY_S), f"not all of {count} replicas are there")
        clients = count * settings.clients_per_replica
        with ClusterLoad([settings.port], clients, settings.seed, timeout_ms=60_000) as load:
            began_s = time.monotonic() + _WARM_UP_S
            pause_s(began_s + settings.duration_s)
            ended_s = began_s + settings.duration_s
        cluster.stop()
    within = [one for one in load.attempts if began_s <= one.ended_s < ended_s]
    right = sum(one.outcome == RIGHT for one in within)
    return right / settings.duration_s, len(load.attempts) - load.counts[RIGHT]


def _median_per_s(rows: list[tuple[int, int, float, int]], count: int) -> float:
    return median(row[2] for row in rows if row[1] == count)
