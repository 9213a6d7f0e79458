"""What an image costs, read from measured folders; each number knows where it comes from."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, median
from typing import Any

from loadtest.errors import LoadTestError
from loadtest.records.metrics import mean_usage, window_usage
from loadtest.records.raw_files import read_document
from scaling.errors import ScalingError
from scaling.json_file import read_json

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
_BEST_POINT = re.compile(
    r"^\*\*`(?P<variant>[^`]+)` serves .* images per second with (?P<clients>\d+) clients",
    re.MULTILINE,
)
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
        images_per_s: of one host with one GPU, or of a host without.
        cpu_ms: CPU of the server an image.
        client_cpu_ms: CPU of the load generator's Thrift client an image.
        cores: of the host.
        has_gpu: whether it has one GPU.
        waits: whether it was measured with so few clients that it had time left: then its CPU an
            image says what a host serves, and the throughput does not.
    """

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
        h100: the same on one H100.
        cpu_decode: ResNet-50 on the GPU, decoding on the CPU.
        cpu_hosts: EfficientNet-Lite0 on hosts without a GPU.
        second_gpu: what two GPUs of one host serve, as a share of twice what one serves.
        front_end_cpu_ms: CPU of a Thrift server that takes an image and answers; with the hop to
            a replica where that is measured.
        hop_cpu_ms: CPU of the hop to a replica, both sides; None where it is in nothing yet.
        hop_latency_ms: what the way to a replica and back adds to a latency.
        balancer_cpu_ms: CPU of HAProxy.
        image_bytes: of the packaged photographs.
        batch_ms: time of a batch of no images on an H200, and of each image, fitted.
        batch_image_ms: likewise.
        largest_batch: the largest one of that fit.
    """

    gpu: ServerCosts
    faster_gpu: ServerCosts
    h100: ServerCosts
    cpu_decode: ServerCosts
    cpu_hosts: tuple[ServerCosts, ...]
    second_gpu: Measured
    front_end_cpu_ms: Measured
    hop_cpu_ms: Measured
    hop_latency_ms: Measured
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
    except (LoadTestError, OSError, KeyError, StopIteration, ValueError) as error:
        raise ScalingError(f"{results} lacks a measurement that is needed: {error}") from error


class _Windows:
    """The windows of one variant, of run.json alone: raw tables take seconds to read.

    Args:
        run: what run.json holds.
        workload: of it.
        variant: that is wanted.
        clients: of a sweep; None for all windows.
    """

    def __init__(
        self, run: Mapping[str, Any], workload: Mapping[str, Any], variant: str, clients: int | None
    ) -> None:
        self.name = variant
        self.clients = clients or int(run["settings"]["request_client"])
        self.cores = int(run["machine"]["cpu_cores_usable"])
        batch = int(run["settings"]["request_batch"])
        windows = [
            window
            for window in workload["windows"]
            if window["variant"] == variant and clients in (None, window.get("clients"))
        ]
        if not windows:
            raise ScalingError(f"a run has no windows of {variant!r} with {clients} clients")
        self.images_per_s: float = median(
            (batch * window["requests"] - window["failed_images"]) / window["length_s"]
            for window in windows
        )
        self._usage = mean_usage([_usage(window) for window in windows])

    def cpu_ms(self, metric: str) -> float:
        """CPU milliseconds an image, of all windows."""
        percent = self._usage[metric]
        if percent is None:
            raise ScalingError(f"{self.name} has no {metric}")
        return float(10 * percent / self.images_per_s)

    @property
    def has_gpu(self) -> bool:
        """Whether a GPU was at work."""
        percents = self._usage["gpu_percents"]
        return percents is not None and max(percents) > 0

    @property
    def how(self) -> str:
        """Which row of a report it is."""
        return f"`{self.name}`, {self.clients} clients"


def _usage(window: Mapping[str, Any]) -> dict[str, Any]:
    samples = window["samples"]
    return window_usage([it["at_s"] for it in samples], samples, window["length_s"])


class _Reader:
    def __init__(self, results: Path) -> None:
        self._results = results

    def costs(self) -> Costs:
        sweeps = ("h200-callers/sweep", "h200/sweep")
        cluster = self._cluster()
        gpus = [_behind_front_ends(self._best_of_sweep(name), cluster) for name in sweeps]
        gpus.sort(key=_images_per_s)
        batch_ms, image_ms, largest = self._batches()
        compared = self._server("h200-callers/compare", "pipeline-5w")
        return Costs(
            gpu=gpus[0],
            faster_gpu=gpus[-1],
            h100=_behind_front_ends(self._best_of_sweep("h100/sweep"), cluster),
            cpu_decode=replace(_behind_front_ends(compared, cluster), waits=True),
            cpu_hosts=(
                self._server("xeon-16core-fp32", "pipeline-4w"),
                self._server("xeon-2core-fp32", "pipeline", "efficientnet_lite0"),
            ),
            second_gpu=self._second_gpu(),
            front_end_cpu_ms=cluster.get("front_end_cpu_ms_per_image") or self._null_request(),
            hop_cpu_ms=self._hop(cluster),
            hop_latency_ms=cluster.get("hop_latency_ms")
            or Measured(None, CLUSTER_FILE, "latency of the hop and back"),
            balancer_cpu_ms=cluster.get("balancer_cpu_ms_per_image")
            or Measured(None, CLUSTER_FILE, "HAProxy's CPU an image"),
            image_bytes=self._image_bytes(),
            batch_ms=batch_ms,
            batch_image_ms=image_ms,
            largest_batch=largest,
        )

    def _run(self, name: str) -> dict[str, Any]:
        return read_document(self._results / name)

    def _best_of_sweep(self, name: str) -> ServerCosts:
        """The point that the sweep's own report names as its best one within its limit."""
        text = (self._results / name / "report.md").read_text(encoding="utf-8")
        found = _BEST_POINT.search(text)
        if found is None:
            raise ScalingError(f"results/{name}/report.md names no best point within a limit")
        run = self._run(name)
        windows = _Windows(run, run["workloads"][0], found["variant"], int(found["clients"]))
        return _server(windows, name)

    def _server(self, name: str, variant: str, workload: str = "") -> ServerCosts:
        run = self._run(name)
        chosen = next(it for it in run["workloads"] if workload in ("", it["name"]))
        return _server(_Windows(run, chosen, variant, None), name)

    def _second_gpu(self) -> Measured:
        """Pairs of the same repeat, with the most clients."""
        folder = self._results / "h200-x2"
        shares = []
        for two in sorted(folder.glob("two-gpus-*-128-clients-repeat-*")):
            repeat = two.name.rpartition("-")[2]
            one = f"one-gpu-4-workers-128-clients-repeat-{repeat}"
            shares.append(self._rate(f"h200-x2/{two.name}") / self._rate(f"h200-x2/{one}") / 2)
        if not shares:
            raise ScalingError("results/h200-x2 has no pairs of one GPU and two")
        return Measured(median(shares), "h200-x2", f"128 clients, {len(shares)} pairs")

    def _rate(self, name: str) -> float:
        run = self._run(name)
        (workload,) = run["workloads"]
        (variant,) = workload["variants"]
        return _Windows(run, workload, variant["name"], None).images_per_s

    def _null_request(self) -> Measured:
        name = "xeon-2core-null-request"
        # Its settings are of an earlier form, which had no number of images: one.
        run = self._run(name)
        windows = _Windows(run, run["workloads"][0], "null", None)
        how = "100 KB in, answered at once; without the hop"
        return Measured(windows.cpu_ms("server_cpu_percent"), name, how)

    def _image_bytes(self) -> Measured:
        name = "h200-callers/sweep"
        images = self._run(name)["images"]
        mean_bytes = fmean(image["size_bytes"] for image in images)
        return Measured(mean_bytes, name, f"mean of {len(images)} photographs")

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
        return _cluster_costs(read_json(path), path)

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


def _server(windows: _Windows, name: str) -> ServerCosts:
    return ServerCosts(
        images_per_s=Measured(windows.images_per_s, name, windows.how),
        cpu_ms=Measured(windows.cpu_ms("server_cpu_percent"), name, windows.how),
        client_cpu_ms=Measured(windows.cpu_ms("clients_cpu_percent"), name, windows.how),
        cores=windows.cores,
        has_gpu=windows.has_gpu,
    )


def _images_per_s(server: ServerCosts) -> float:
    return server.images_per_s.known
