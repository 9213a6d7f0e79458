"""The numbers of a server, as `stats` gives them: added up over processes, and compared over time.

Each class has the fields of the IDL's struct of its name, which says what they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, TypeVar

BOUNDS_MS = (
    *(0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 50.0, 75.0, 100.0, 150.0, 200.0),
    *(300.0, 500.0, 750.0, 1000.0, 1500.0, 2000.0, 3000.0, 5000.0, 10_000.0, 30_000.0),
)
"""Of the histograms that a server fills: up to 10 s each is at most twice the one before."""

_T = TypeVar("_T")
_IS_OF_NOW = "now"

# For a field that describes the present moment, and ends with its process.
_NOW = {_IS_OF_NOW: True}


@dataclass(frozen=True)
class Histogram:
    """Times of one kind, counted by their length."""

    counts: list[int]
    sum_ms: float

    @property
    def count(self) -> int:
        """How many times there are."""
        return sum(self.counts)

    @property
    def mean_ms(self) -> float:
        """0 where there is none."""
        return self.sum_ms / (self.count or 1)

    def quantile_ms(self, share: float, bounds_ms: Sequence[float]) -> float | None:
        """The time that this share of all does not exceed; None where there is none.

        It is interpolated within its bucket, as PromQL's histogram_quantile does. Beyond the last
        bound it is that bound.
        """
        rank = share * self.count
        passed, lower_ms = 0, 0.0
        for count, upper_ms in zip(self.counts, bounds_ms, strict=False):
            if count and passed + count >= rank:
                return lower_ms + (upper_ms - lower_ms) * (rank - passed) / count
            passed, lower_ms = passed + count, upper_ms
        return lower_ms if self.count else None


LEAVE_REASONS = {
    "full": "as many images waited as a batch takes",
    "idle": "an instance had nothing else to do",
    "timeout": "the oldest image had waited for `batching_timeout`",
}
"""Why batches leave, in words, by the keys of `NodeStats.batches_by_reason`."""


@dataclass(frozen=True)
class NodeStats:
    """A node of the pipeline, or the baseline's engine."""

    items: int = 0
    failed_items: int = 0
    queue_ms: float = 0.0
    forward_ms: float = 0.0
    batches_by_size: dict[int, int] = field(default_factory=dict)
    batches_by_reason: dict[str, int] = field(default_factory=dict)
    rebuilds: int = 0
    instances: int = field(default=0, metadata=_NOW)
    working_instances: int = field(default=0, metadata=_NOW)
    stuck_instances: int = field(default=0, metadata=_NOW)

    @property
    def batches(self) -> int:
        """How many have left."""
        return sum(self.batches_by_size.values())


@dataclass(frozen=True)
class WorkerStats:
    """One of the processes that serve."""

    worker: int
    pid: int
    why_not_ready: str
    connections: int
    images_in_flight: int
    calls: int
    report_age_s: float = 0.0


@dataclass(frozen=True)
class EngineProcessStats:
    """The process that computes for all workers."""

    alive: bool
    pid: int
    started_at_s: float
    restarts: int = 0


@dataclass(frozen=True)
class GpuStats:
    """A GPU of the host."""

    index: int
    uuid: str
    name: str
    utilization: float
    memory_used_bytes: int
    memory_total_bytes: int


@dataclass(frozen=True)
class Stats:
    """A server, or one of its processes."""

    uptime_s: float = field(default=0.0, metadata=_NOW)
    calls: dict[str, dict[str, int]] = field(default_factory=dict)
    images: dict[str, int] = field(default_factory=dict)
    refusals: dict[str, int] = field(default_factory=dict)
    bounds_ms: list[float] = field(default_factory=lambda: list(BOUNDS_MS))
    latencies: dict[str, Histogram] = field(default_factory=dict)
    stages: dict[str, Histogram] = field(default_factory=dict)
    calls_in_flight: int = field(default=0, metadata=_NOW)
    images_in_flight: int = field(default=0, metadata=_NOW)
    images_waiting: int = field(default=0, metadata=_NOW)
    connections: int = field(default=0, metadata=_NOW)
    reserve_connections: int = field(default=0, metadata=_NOW)
    max_connections: int = field(default=0, metadata=_NOW)
    connections_opened: int = 0
    nodes: dict[str, NodeStats] = field(default_factory=dict)
    workers: list[WorkerStats] = field(default_factory=list, metadata=_NOW)
    worker_restarts: int = 0
    engine_process: EngineProcessStats | None = field(default=None, metadata=_NOW)
    gpus: list[GpuStats] = field(default_factory=list, metadata=_NOW)
    wanted_workers: int = field(default=0, metadata=_NOW)

    def calls_by_outcome(self) -> dict[str, int]:
        """How many calls ended in each way, whatever their method."""
        total: dict[str, int] = {}
        for by_outcome in self.calls.values():
            total = _combined(total, by_outcome, _plus)
        return total


def added(one: _T, other: _T) -> _T:
    """The numbers of two processes together.

    Numbers are added up, those of one key or of one place, too; lists of structs are joined. Of
    what is no number the first one's stays, unless it is None.
    """
    total: _T = _combined(one, other, _plus)
    return total


def since(later: _T, earlier: _T) -> _T:
    """What was counted between two `stats`; fields of the present moment are the later one's.

    If the server was restarted in between, the counts mean nothing, and may be below 0.
    """
    difference: _T = _combined(later, earlier, _minus, with_now=False)
    return difference


def without_now(stats: _T) -> _T:
    """What remains of the numbers of a process that is gone: what it has counted."""
    changes: dict[str, Any] = {}
    for entry in fields(stats):  # type: ignore[arg-type]
        value = getattr(stats, entry.name)
        if _IS_OF_NOW in entry.metadata:
            changes[entry.name] = None if is_dataclass(value) or value is None else type(value)()
        elif isinstance(value, dict):
            changes[entry.name] = {
                key: without_now(one) if is_dataclass(one) else one for key, one in value.items()
            }
    return replace(stats, **changes)  # type: ignore[type-var]


def _plus(one: float, other: float) -> float:
    return one + other


def _minus(one: float, other: float) -> float:
    return one - other


def _combined(
    one: Any, other: Any, operation: Callable[[float, float], float], *, with_now: bool = True
) -> Any:
    if isinstance(one, dict):
        combined = dict(one)
        for key, value in other.items():
            zero = _zero(value) if key not in one else one[key]
            combined[key] = _combined(zero, value, operation, with_now=with_now)
        return combined
    if isinstance(one, Stats | NodeStats | Histogram):
        changes = {
            entry.name: _combined(
                getattr(one, entry.name), getattr(other, entry.name), operation, with_now=with_now
            )
            for entry in fields(one)
            if entry.name != "bounds_ms" and (with_now or _IS_OF_NOW not in entry.metadata)
        }
        return replace(one, **changes)
    if isinstance(one, list):
        if any(map(is_dataclass, (*one, *other))):
            return [*one, *other]
        return [operation(a, b) for a, b in zip(one, other, strict=True)] if other else list(one)
    if isinstance(one, int | float) and not isinstance(one, bool):
        return operation(one, other)
    return other if one is None else one


def _zero(value: Any) -> Any:
    """The value that changes nothing when it is added to such a one."""
    if isinstance(value, Histogram):
        return Histogram([0] * len(value.counts), 0.0)
    return type(value)()
