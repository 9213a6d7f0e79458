"""What the processes of `pipeline.benchmark` are asked for, and what they answer.

The standard library is all that this needs: torchpipe's side runs where nothing else of this
project is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

SLEEP_BACKEND, COPY_BACKEND = "MeasureSleep", "MeasureCopy"
"""The backends by which both runtimes are measured."""
SMALLEST_SETTING, LARGEST_SETTING = "measure_min", "measure_max"
"""Settings of these backends: rows of the smallest and of the largest batch."""

Document: TypeAlias = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Failed:
    """There is no such side, the window cannot be measured, or the graph cannot run.

    Attributes:
        reason: why.
    """

    reason: str


@dataclass(frozen=True)
class Started:
    """A side is ready for its first window.

    Attributes:
        versions: of what runs below its pipes.
    """

    versions: dict[str, str]


@dataclass(frozen=True)
class ClosedLoop:
    """So many threads, each calling with one item after the other.

    Attributes:
        document: the pipe that they call.
        clients: number of threads.
        duration_s: how long they call.
        data: of each item.
        with_latencies: whether the latency of every call is told.
    """

    window: ClassVar[str] = "closed_loop"
    document: Document
    clients: int
    duration_s: float
    data: float
    with_latencies: bool


@dataclass(frozen=True)
class LateRequest:
    """A single request when nothing else waits, after others have given instances work.

    Attributes:
        document: a pipe of two instances.
        busy: how many instances still work when the request comes: 0 (both have worked before),
            1 (the other one has nothing to do) or 2.
        trials: how often.
        model_s: what a batch takes.
        late_after_s: from the begin of the last batch before it until the request.
        second_items: items that arrive at once for the second instance. A runtime that holds a
            single item back while an instance works needs a full batch of them.
    """

    window: ClassVar[str] = "late_request"
    document: Document
    busy: int
    trials: int
    model_s: float
    late_after_s: float
    second_items: int = 1


@dataclass(frozen=True)
class Waiting:
    """Items wait in a node, and nothing else happens.

    Attributes:
        document: a pipe of one instance.
        waiting_items: how many wait.
        hold_s: how long the instance works on something else; None for not at all, where the items
            wait because they are too few.
        wait_s: how long the CPU time is measured.
        model_s: what the waiting items take afterwards.
    """

    window: ClassVar[str] = "waiting"
    document: Document
    waiting_items: int
    hold_s: float | None
    wait_s: float
    model_s: float


Window: TypeAlias = ClosedLoop | LateRequest | Waiting


@dataclass(frozen=True, kw_only=True)
class WindowResult:
    """What every window tells.

    Attributes:
        elapsed_s: how long it took.
        process_cpu_s: CPU time of the process before and after.
    """

    elapsed_s: float = 0.0
    process_cpu_s: Sequence[float] = (0.0, 0.0)


@dataclass(frozen=True)
class ClosedLoopResult(WindowResult):
    """Of a `ClosedLoop`.

    Attributes:
        items: how many were answered.
        wall_s: from the start to the last answer.
        cpu_s: CPU time of the whole process meanwhile.
        batch_sizes: how many batches of each size began, of backends that tell it.
        latencies_ms: of all calls; empty where they were not asked for.
    """

    items: int
    wall_s: float
    cpu_s: float
    batch_sizes: dict[str, int]
    latencies_ms: list[float]


@dataclass(frozen=True)
class LateRequestResult(WindowResult):
    """Of a `LateRequest`.

    Attributes:
        latencies_ms: of the requests.
        batches_before: for each one the sizes of the batches that had begun when it came.
    """

    latencies_ms: list[float]
    batches_before: list[list[int]]


@dataclass(frozen=True)
class WaitingResult(WindowResult):
    """Of a `Waiting`.

    Attributes:
        cpu_s: CPU time of the process in `wall_s`.
        wall_s: how long it was measured.
        batches_begun: how many batches began meanwhile, which must be none.
        refused: the error of the calls, if they were not let wait.
    """

    cpu_s: float
    wall_s: float
    batches_begun: int
    refused: str | None


WINDOWS = (ClosedLoop, LateRequest, Waiting)
"""To a side, on its stdin."""
ANSWERS = (Started, ClosedLoopResult, LateRequestResult, WaitingResult, Failed)
"""From a side: `Started`, then one for each window."""


@dataclass(frozen=True)
class CheckItems:
    """To `pipeline.benchmark.integrity`: how its items are sent.

    Attributes:
        items: how many.
        clients: threads that send them.
        instances: of each node.
        sample_s: time between two samples of memory.
    """

    items: int
    clients: int
    instances: int
    sample_s: float


@dataclass(frozen=True)
class MemorySample:
    """Memory of the process at one moment.

    Attributes:
        items: how many were done.
        rss_bytes: memory in use.
    """

    items: int
    rss_bytes: int


@dataclass(frozen=True)
class Checking:
    """The check goes on.

    Attributes:
        progress: how far it is, in a line.
    """

    progress: str


@dataclass(frozen=True)
class Checked:
    """What became of the items.

    Attributes:
        items: how many were done.
        failed_on_purpose: how many of them had to fail.
        findings: how many were wrong, by kind.
        examples: some of those in words.
        wall_s: how long all took.
        samples: memory over the items.
        settings: what the check adds to its request.
        document: the graph.
        versions: of what ran.
    """

    items: int
    failed_on_purpose: int
    findings: dict[str, int]
    examples: list[str]
    wall_s: float
    samples: list[MemorySample]
    settings: dict[str, int]
    document: Document
    versions: dict[str, str]


CHECK_ANSWERS = (Checking, Checked, Failed)
"""From `pipeline.benchmark.integrity`: the last one is `Checked` or `Failed`."""
