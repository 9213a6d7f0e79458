"""Which metrics there are, and where each is in the stats of a server.

The names follow Prometheus's conventions: base units, and `_total` at the end of what is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple, TypeAlias

from interfaces.stats import Histogram, NodeStats, Stats
from interfaces.versions import package_versions

PREFIX = "thriftpipe"
_BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


@dataclass(frozen=True)
class Snapshot:
    """What the metrics are read from.

    Attributes:
        stats: the whole server's.
        info: the IDL's ServerInfo, or None.
        why_not_ready: "" where it is ready.
    """

    stats: Stats
    info: Any
    why_not_ready: str


class Buckets(NamedTuple):
    """A histogram as Prometheus has it.

    Attributes:
        bounds: the upper ones, in base units, without infinity.
        cumulative: how many are at most each bound, and how many there are.
        sum: of all of them.
    """

    bounds: Sequence[float]
    cumulative: Sequence[int]
    sum: float


# The values of the labels, and that of the metric.
Sample: TypeAlias = "tuple[tuple[str, ...], float | Buckets]"


@dataclass(frozen=True)
class Metric:
    """A metric.

    Attributes:
        name: whole, as it is scraped; of a histogram without `_bucket`.
        kind: "counter", "gauge" or "histogram".
        help: what it is.
        labels: their names.
        read: its samples.
    """

    name: str
    kind: str
    help: str
    labels: tuple[str, ...]
    read: Callable[[Snapshot], Iterable[Sample]]


def _one(value: Callable[[Snapshot], float]) -> Callable[[Snapshot], Iterable[Sample]]:
    return lambda snapshot: [((), value(snapshot))]


def _by_key(values: Callable[[Stats], Mapping[str, float]]) -> Callable[..., Iterable[Sample]]:
    return lambda snapshot: [((key,), value) for key, value in values(snapshot.stats).items()]


def _of_nodes(value: Callable[[NodeStats], float]) -> Callable[[Snapshot], Iterable[Sample]]:
    return lambda snapshot: [((name,), value(node)) for name, node in snapshot.stats.nodes.items()]


def _times(
    histograms: Callable[[Stats], Mapping[str, Histogram]],
) -> Callable[[Snapshot], Iterable[Sample]]:
    def read(snapshot: Snapshot) -> Iterator[Sample]:
        bounds_s = [bound_ms / 1000 for bound_ms in snapshot.stats.bounds_ms]
        for name, histogram in histograms(snapshot.stats).items():
            cumulative = list(accumulate(histogram.counts))
            yield (name,), Buckets(bounds_s, cumulative, histogram.sum_ms / 1000)

    return read


def _calls(snapshot: Snapshot) -> Iterator[Sample]:
    for method, by_outcome in snapshot.stats.calls.items():
        for outcome, count in by_outcome.items():
            yield (method, outcome), count


def _batches(snapshot: Snapshot) -> Iterator[Sample]:
    for name, node in snapshot.stats.nodes.items():
        for reason, count in node.batches_by_reason.items():
            yield (name, reason), count


def _batch_sizes(snapshot: Snapshot) -> Iterator[Sample]:
    for name, node in snapshot.stats.nodes.items():
        sizes = node.batches_by_size
        up_to = [sum(n for size, n in sizes.items() if size <= bound) for bound in _BATCH_SIZES]
        rows = sum(size * n for size, n in sizes.items())
        yield (name,), Buckets(_BATCH_SIZES, [*up_to, node.batches], rows)


def _info(snapshot: Snapshot) -> Iterator[Sample]:
    info = snapshot.info
    if info is not None:
        version = package_versions(["thriftpipe"]).get("thriftpipe", "")
        yield (version, info.handler, info.engine, info.precision, info.model), 1


def _gpus(value: str) -> Callable[[Snapshot], Iterable[Sample]]:
    return lambda snapshot: [
        ((str(gpu.index), gpu.uuid, gpu.name), getattr(gpu, value)) for gpu in snapshot.stats.gpus
    ]


def _engine_process(value: str) -> Callable[[Snapshot], Iterable[Sample]]:
    def read(snapshot: Snapshot) -> Iterator[Sample]:
        if (process := snapshot.stats.engine_process) is not None:
            yield (), float(getattr(process, value))

    return read


def _metric(
    name: str, kind: str, help: str, labels: str, read: Callable[[Snapshot], Iterable[Sample]]
) -> Metric:
    return Metric(f"{PREFIX}_{name}", kind, help, tuple(labels.split()), read)


_NODE, _GPU = "node", "gpu uuid name"
METRICS = (
    _metric(
        "info",
        "gauge",
        "1; the labels say what runs",
        "version handler engine precision model",
        _info,
    ),
    _metric(
        "ready",
        "gauge",
        "Whether the server can take requests: 1, or 0",
        "",
        _one(lambda snapshot: not snapshot.why_not_ready),
    ),
    _metric(
        "uptime_seconds",
        "gauge",
        "Time since the server was started",
        "",
        _one(lambda snapshot: snapshot.stats.uptime_s),
    ),
    _metric("requests_total", "counter", "Calls that were answered", "method outcome", _calls),
    _metric(
        "request_duration_seconds",
        "histogram",
        "Time from a call's last byte to its encoded reply, without calls that were refused",
        "method",
        _times(lambda stats: stats.latencies),
    ),
    _metric(
        "images_total",
        "counter",
        "Images of calls that were let in",
        "outcome",
        _by_key(lambda stats: stats.images),
    ),
    _metric(
        "stage_duration_seconds",
        "histogram",
        "Time that an image which was classified has spent in a stage",
        "stage",
        _times(lambda stats: stats.stages),
    ),
    _metric(
        "refused_requests_total",
        "counter",
        "Calls that were refused as Overloaded",
        "reason",
        _by_key(lambda stats: stats.refusals),
    ),
    _metric(
        "requests_in_flight",
        "gauge",
        "Calls that were let in and are not answered",
        "",
        _one(lambda snapshot: snapshot.stats.calls_in_flight),
    ),
    _metric(
        "images_in_flight",
        "gauge",
        "Images of these calls",
        "",
        _one(lambda snapshot: snapshot.stats.images_in_flight),
    ),
    _metric(
        "images_waiting",
        "gauge",
        "Of these images: more than the handler works on at once",
        "",
        _one(lambda snapshot: snapshot.stats.images_waiting),
    ),
    _metric(
        "connections",
        "gauge",
        "Open connections",
        "",
        _one(lambda snapshot: snapshot.stats.connections),
    ),
    _metric(
        "reserve_connections",
        "gauge",
        "Of these: beyond --max-connections",
        "",
        _one(lambda snapshot: snapshot.stats.reserve_connections),
    ),
    _metric(
        "max_connections",
        "gauge",
        "--max-connections",
        "",
        _one(lambda snapshot: snapshot.stats.max_connections),
    ),
    _metric(
        "connections_opened_total",
        "counter",
        "Connections that were taken up",
        "",
        _one(lambda snapshot: snapshot.stats.connections_opened),
    ),
    _metric(
        "node_items_total",
        "counter",
        "Items that a node was given",
        _NODE,
        _of_nodes(lambda node: node.items),
    ),
    _metric(
        "node_failed_items_total",
        "counter",
        "Of these: failed there, or were dropped by it",
        _NODE,
        _of_nodes(lambda node: node.failed_items),
    ),
    _metric(
        "node_queue_seconds_total",
        "counter",
        "How long a node's items have waited, together",
        _NODE,
        _of_nodes(lambda node: node.queue_ms / 1000),
    ),
    _metric(
        "node_forward_seconds_total",
        "counter",
        "How long a node's instances have run batches, together",
        _NODE,
        _of_nodes(lambda node: node.forward_ms / 1000),
    ),
    _metric(
        "node_batches_total",
        "counter",
        "Batches that left a node's queue, by why: full, idle, timeout",
        f"{_NODE} reason",
        _batches,
    ),
    _metric("node_batch_rows", "histogram", "Rows of a batch", _NODE, _batch_sizes),
    _metric(
        "node_instances",
        "gauge",
        "Instances that a node is to have",
        _NODE,
        _of_nodes(lambda node: node.instances),
    ),
    _metric(
        "node_working_instances",
        "gauge",
        "Of these: in service",
        _NODE,
        _of_nodes(lambda node: node.working_instances),
    ),
    _metric(
        "node_stuck_instances",
        "gauge",
        "Of these: at work on a batch for far longer than usual",
        _NODE,
        _of_nodes(lambda node: node.stuck_instances),
    ),
    _metric(
        "node_rebuilds_total",
        "counter",
        "How often an instance was broken and is back",
        _NODE,
        _of_nodes(lambda node: node.rebuilds),
    ),
    _metric(
        "workers",
        "gauge",
        "Processes that serve",
        "",
        _one(lambda snapshot: len(snapshot.stats.workers)),
    ),
    _metric(
        "wanted_workers",
        "gauge",
        "Processes that there are to be",
        "",
        _one(lambda snapshot: snapshot.stats.wanted_workers),
    ),
    _metric(
        "ready_workers",
        "gauge",
        "Of those that serve: can take requests",
        "",
        _one(lambda snapshot: sum(not one.why_not_ready for one in snapshot.stats.workers)),
    ),
    _metric(
        "worker_restarts_total",
        "counter",
        "Workers that ended and were to be replaced",
        "",
        _one(lambda snapshot: snapshot.stats.worker_restarts),
    ),
    _metric(
        "engine_process_up",
        "gauge",
        "Whether the engine process, where there is one, is there: 1, or 0",
        "",
        _engine_process("alive"),
    ),
    _metric(
        "engine_process_restarts_total",
        "counter",
        "How often another engine process took its place",
        "",
        _engine_process("restarts"),
    ),
    _metric(
        "gpu_utilization_ratio",
        "gauge",
        "Share of the last moment in which a GPU computed, for whatever process",
        _GPU,
        _gpus("utilization"),
    ),
    _metric(
        "gpu_memory_used_bytes",
        "gauge",
        "Memory of a GPU that is taken, by whatever process",
        _GPU,
        _gpus("memory_used_bytes"),
    ),
    _metric(
        "gpu_memory_total_bytes", "gauge", "Memory of a GPU", _GPU, _gpus("memory_total_bytes")
    ),
)
