"""What an image costs, read from measured folders; each number knows where it comes from."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, median
from typing import Any

from loadtest.errors import LoadTestError
from loadtest.records import raw_files
from loadtest.records.run import Run
from loadtest.report.summary import Row, best_row, summarise, sweep_rows
from scaling.errors import ScalingError

TP99_LIMIT_MS = 15.0
"""Within which a GPU's throughput counts: that of the repository's sweeps."""
CLUSTER_FILE = "cluster/costs.json"
# Milliseconds; CPU an image. That of a replica is what it takes more than a server that clients
# reach themselves.
_CLUSTER_KEYS = (
    "front_end_cpu_ms_per_image",
    "replica_cpu_ms_per_image",
    "hop_latency_ms",
    "balancer_cpu_ms_per_image",
)
_CLUSTER_COMMAND = "command"
_BATCH_LINE = re.compile(r"^(\d+) F F: \d+ img/s (\d+) us$", re.MULTILINE)


@dataclass(frozen=True)
class Measured:
    """A number and its source.

    Attributes:
        value: in the unit that its name says; None where it is not measured yet.
        source: the folder or file below results/.
        how: which row of it, in words.
    """

    value: float | None
    source: str
    how: str

    @property
    def known(self) -> float:
        """The value.

        Raises:
            ScalingError: it is not measured yet.
        """
        if self.value is None:
            raise ScalingError(f"not measured yet: {self.how} (results/{self.source})")
        return self.value


@dataclass(frozen=True)
class ServerCosts:
    """A server on its own host.

    Attributes:
        name: what tables call it.
        images_per_s: of one host with one GPU, or of a host without.
        cpu_ms: CPU of the server an image.
        client_cpu_ms: CPU of the load generator's Thrift client an image.
        cores: of the host.
        has_gpu: whether it has one GPU.
        waits: whether it was measured with so few clients that it had time left: then its CPU an
            image says what a host serves, and the throughput does not.
    """

    name: str
    images_per_s: Measured
    cpu_ms: Measured
    client_cpu_ms: Measured
    cores: int
    has_gpu: bool
    waits: bool = False


@dataclass(frozen=True)
class Costs:
    """All that the arithmetic needs.

    Attributes:
        gpu: ResNet-50, decoding on the GPU; the slower one of the machines that were measured.
        faster_gpu: the same of the faster one.
        cpu_decode: ResNet-50 on the GPU, decoding on the CPU.
        cpu_hosts: EfficientNet-Lite0 on hosts without a GPU.
        second_gpu: what two GPUs of one host serve, as a share of twice what one serves.
        front_end_cpu_ms: CPU of a Thrift server that takes an image and answers; with the hop to
            a replica where that is measured.
        hop_cpu_ms: CPU of the hop to a replica, both sides; None where it is in nothing yet.
        balancer_cpu_ms: CPU of HAProxy.
        image_bytes: of the packaged photographs.
        batch_ms: time of a batch of no images on an H200, and of each image, fitted.
        batch_image_ms: likewise.
        largest_batch: the largest one of that fit.
    """

    gpu: ServerCosts
    faster_gpu: ServerCosts
    cpu_decode: ServerCosts
    cpu_hosts: tuple[ServerCosts, ...]
    second_gpu: Measured
    front_end_cpu_ms: Measured
    hop_cpu_ms: Measured
    balancer_cpu_ms: Measured
    image_bytes: Measured
    batch_ms: Measured
    batch_image_ms: Measured
    largest_batch: int


def read_costs(results: Path) -> Costs:
    """The costs of a folder of results.

    Raises:
        ScalingError: a folder is missing, damaged, or has no such row.
    """
    try:
        return _Reader(results).costs()
    except (LoadTestError, OSError, KeyError, StopIteration) as error:
        raise ScalingError(f"{results} lacks a measurement that is needed: {error}") from error


class _Reader:
    def __init__(self, results: Path) -> None:
        self._results = results

    def costs(self) -> Costs:
        sweeps = ("h200-callers/sweep", "h200/sweep")
        gpus = sorted((self._best_of_sweep(name) for name in sweeps), key=_images_per_s)
        batch_ms, image_ms, largest = self._batches()
        cluster = self._cluster()
        gpus = [_behind_front_ends(gpu, cluster) for gpu in gpus]
        return Costs(
            gpu=gpus[0],
            faster_gpu=gpus[-1],
            cpu_decode=replace(
                self._row("h200-callers/compare", "pipeline-5w", "H200, CPU decode, 5 processes"),
                waits=True,
            ),
            cpu_hosts=(
                self._row("xeon-16core-fp32", "pipeline-4w", "CPU, 16 cores, 4 processes"),
                self._row("xeon-2core-fp32", "pipeline", "CPU, 2 cores", "efficientnet_lite0"),
            ),
            second_gpu=self._second_gpu(),
            front_end_cpu_ms=cluster.get("front_end_cpu_ms_per_image") or self._null_request(),
            hop_cpu_ms=self._hop(cluster),
            balancer_cpu_ms=cluster.get("balancer_cpu_ms_per_image")
            or Measured(None, CLUSTER_FILE, "HAProxy's CPU an image"),
            image_bytes=self._image_bytes(),
            batch_ms=batch_ms,
            batch_image_ms=image_ms,
            largest_batch=largest,
        )

    def _run(self, name: str) -> Run:
        return raw_files.read(self._results / name)

    def _best_of_sweep(self, name: str) -> ServerCosts:
        run = self._run(name)
        row = best_row(sweep_rows(run, run.workloads[0]), TP99_LIMIT_MS)
        if row is None:
            raise ScalingError(f"results/{name} has no row with TP99 <= {TP99_LIMIT_MS:g} ms")
        return _server(run, row, name, "H200, GPU decode, 4 processes")

    def _row(self, name: str, variant: str, title: str, workload: str = "") -> ServerCosts:
        run = self._run(name)
        chosen = next(w for w in run.workloads if workload in ("", w.name))
        row = next(r for r in summarise(run, chosen) if r.name == variant)
        return _server(run, row, name, title)

    def _second_gpu(self) -> Measured:
        """Pairs of the same repeat, with the most clients."""
        folders = sorted((self._results / "h200-x2").glob("two-gpus-*-128-clients-repeat-*"))
        shares = []
        for folder in folders:
            repeat = folder.name.rpartition("-")[2]
            one = self._rate(folder.with_name(f"one-gpu-4-workers-128-clients-repeat-{repeat}"))
            shares.append(self._rate(folder) / one / 2)
        if not shares:
            raise ScalingError("results/h200-x2 has no pairs of one GPU and two")
        return Measured(median(shares), "h200-x2", f"two GPUs, of twice one, {len(shares)} pairs")

    def _rate(self, folder: Path) -> float:
        run = raw_files.read(folder)
        return summarise(run, run.workloads[0])[0].qps.median

    def _null_request(self) -> Measured:
        run = self._run("xeon-2core-null-request")
        row = summarise(run, run.workloads[0])[0]
        return Measured(
            _cpu_ms(row, "server_cpu_percent"),
            "xeon-2core-null-request",
            "a request with 100 KB that is answered at once; without the hop to a replica",
        )

    def _image_bytes(self) -> Measured:
        name = "h200-callers/sweep"
        run = self._run(name)
        mean_bytes = fmean(image["size_bytes"] for image in run.images)
        return Measured(mean_bytes, name, f"mean of {len(run.images)} photographs")

    def _batches(self) -> tuple[Measured, Measured, int]:
        name = "h200-overlap"
        text = (self._results / name / "README.md").read_text(encoding="utf-8")
        points = [(int(n), int(us) / 1000) for n, us in _BATCH_LINE.findall(text)]
        if len(points) < 2:
            raise ScalingError(f"results/{name}/README.md has no lines 'N F F: ... us'")
        batch_ms, image_ms = fitted(points)
        how = f"fit of batches of {', '.join(str(n) for n, _ in points)}, one thread"
        largest = max(n for n, _ in points)
        return Measured(batch_ms, name, how), Measured(image_ms, name, how), largest

    def _cluster(self) -> Mapping[str, Measured]:
        """What the cluster's own measurement has left; empty while there is none."""
        path = self._results / CLUSTER_FILE
        if not path.exists():
            return {}
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise ScalingError(f"{path} is no JSON: {error}") from error
        return _cluster_costs(document, path)

    def _hop(self, cluster: Mapping[str, Measured]) -> Measured:
        front = cluster.get("front_end_cpu_ms_per_image")
        if front is None:
            return Measured(
                None, CLUSTER_FILE, "CPU of the hop from front end to replica, an image"
            )
        hop_ms = front.known - self._null_request().known
        if (replica := cluster.get("replica_cpu_ms_per_image")) is not None:
            hop_ms += replica.known
        how = "front end, less a server that answers at once, and what a replica takes more"
        return Measured(hop_ms, CLUSTER_FILE, how)


def _cluster_costs(document: Any, path: Path) -> dict[str, Measured]:
    if not isinstance(document, dict):
        raise ScalingError(f"{path} must hold a JSON object")
    allowed = (*_CLUSTER_KEYS, _CLUSTER_COMMAND)
    if unknown := sorted(set(document) - set(allowed)):
        raise ScalingError(f"{path} has unknown keys {unknown}; known: {', '.join(allowed)}")
    how = str(document.pop(_CLUSTER_COMMAND, "the cluster's own measurement"))
    for key, value in document.items():
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not 0 <= value < math.inf:
            raise ScalingError(f"{path}: {key} must be a number of at least 0, got {value!r}")
    return {key: Measured(float(value), CLUSTER_FILE, how) for key, value in document.items()}


def _behind_front_ends(server: ServerCosts, cluster: Mapping[str, Measured]) -> ServerCosts:
    """A server with what a replica takes more than a server that clients reach themselves."""
    more = cluster.get("replica_cpu_ms_per_image")
    if more is None:
        return server
    cpu = server.cpu_ms
    how = f"{cpu.how}, and {more.known:.3f} ms of the hop ({more.source})"
    return replace(server, cpu_ms=replace(cpu, value=cpu.known + more.known, how=how))


def fitted(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The line a + b n through points (n, y), by least squares."""
    n = len(points)
    mean_x = sum(x for x, _ in points) / n
    mean_y = sum(y for _, y in points) / n
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / sum(
        (x - mean_x) ** 2 for x, _ in points
    )
    return mean_y - slope * mean_x, slope


def _server(run: Run, row: Row, name: str, title: str) -> ServerCosts:
    how = f"`{row.name}`, {row.clients_text}"
    return ServerCosts(
        name=title,
        images_per_s=Measured(row.qps.median, name, how),
        cpu_ms=Measured(_cpu_ms(row, "server_cpu_percent"), name, how),
        client_cpu_ms=Measured(_cpu_ms(row, "clients_cpu_percent"), name, how),
        cores=int(run.machine["cpu_cores_usable"]),
        has_gpu=row.usage["gpu_percents"] is not None and max(row.usage["gpu_percents"]) > 0,
    )


def _cpu_ms(row: Row, metric: str) -> float:
    """CPU milliseconds an image, of all windows."""
    percent = row.usage[metric]
    if percent is None:
        raise ScalingError(f"{row.name} has no {metric}")
    return float(10 * percent / row.qps.median)


def _images_per_s(server: ServerCosts) -> float:
    return server.images_per_s.known
