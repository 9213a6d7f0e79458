"""What each change on the way from the baseline to the pipeline is worth, one at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import log

from loadtest.report.row_text import processes_text
from loadtest.report.summary import Row
from loadtest.servers.variants import BASELINE, CONTROL, IN_PROCESS, PIPELINE, PIPELINE_GPU
from loadtest.servers.variants import server_processes as in_words
from measurement.statistics import Ratio

LOCK = "its lock away"
_BATCHING = "batching and instances"
_INSTANCES = "instances without batching"
_DECODER = "decoder on the GPU"


@dataclass(frozen=True)
class Step:
    """One row on the way, and what is new in it.

    Attributes:
        changes: what is new since the step before; empty for the first one.
        row: what was measured.
        ratio: of its QPS to that of the step before, paired by repeats; None for the first one.
        share: of all steps' factors together, as logarithms; None where no gain is proven.
    """

    changes: Sequence[str]
    row: Row
    ratio: Ratio | None
    share: float | None

    @property
    def label(self) -> str:
        """The changes as text."""
        return ", ".join(self.changes) or self.row.name


@dataclass(frozen=True)
class Waterfall:
    """The way from the baseline to the pipeline.

    Attributes:
        steps: the baseline, and a step for each change.
        whole: the last step's QPS against the baseline's.
        notes: which changes have no step of their own, and why.
        bound: the upper bound; None where it was not measured.
    """

    steps: Sequence[Step]
    whole: Ratio
    notes: Sequence[str]
    bound: Row | None


def waterfall(rows: Sequence[Row], *, on_gpu: bool) -> Waterfall | None:
    """The way through the rows of a comparison.

    Args:
        rows: of one workload.
        on_gpu: whether its engine runs on a GPU.

    Returns:
        None where there is no baseline of one process, or no pipeline, to go between, or a
        variant on the way answered nothing.
    """
    known: dict[tuple[str, int], Row] = {}
    for row in rows:
        known.setdefault((row.base, row.processes), row)
    count = _processes(rows)
    if (BASELINE, 1) not in known or count is None:
        return None
    way = _way(known, count)
    ratios = [after.ratio_to(before.name) for before, after in pairwise(way)]
    known_ratios = [ratio for ratio in ratios if ratio is not None]
    whole = way[-1].ratio_to(way[0].name)
    if whole is None or len(known_ratios) < len(ratios):
        return None
    logs = [log(ratio.spread.median) for ratio in known_ratios]
    gain = sum(logs)
    steps = [Step([], way[0], None, None)]
    for (before, after), ratio, value in zip(pairwise(way), known_ratios, logs, strict=True):
        share = value / gain if gain > 0 and whole.is_distinct else None
        steps.append(Step(_changes(before, after), after, ratio, share))
    bound = next((row for row in rows if row.base == IN_PROCESS), None)
    return Waterfall(steps, whole, [*_notes(known, steps, on_gpu=on_gpu)], bound)


def _processes(rows: Sequence[Row]) -> int | None:
    """Number of processes in which the baseline's and the pipeline's engines are compared.

    The most that both have, else that of the first pipeline; None without a pipeline.
    """
    pipelines = [row.processes for row in rows if row.base == PIPELINE] or [
        row.processes for row in rows if row.base == PIPELINE_GPU
    ]
    others = {row.processes for row in rows if row.base in {BASELINE, CONTROL}}
    return max(others.intersection(pipelines), default=next(iter(pipelines), None))


def _way(known: dict[tuple[str, int], Row], count: int) -> list[Row]:
    """The rows in the order of the changes, each with those before it as far as measured."""
    way = [known[BASELINE, 1]]
    for key in (
        (CONTROL, 1),
        ((CONTROL if (CONTROL, 1) in known else BASELINE), count),
        (PIPELINE, count),
        _closest(known, PIPELINE_GPU, count),
    ):
        if key in known and known[key] is not way[-1]:
            way.append(known[key])
    # The number of processes may be a change of its own at the end.
    siblings = [row for row in known.values() if row.base == way[-1].base]
    fastest = max(siblings, key=lambda row: row.qps.median)
    return way if fastest is way[-1] else [*way, fastest]


def _closest(known: dict[tuple[str, int], Row], base: str, count: int) -> tuple[str, int]:
    """The key of a variant with so many processes, or with what it has."""
    counts = [processes for name, processes in known if name == base]
    return (base, count if count in counts else next(iter(counts), count))


def _changes(before: Row, after: Row) -> list[str]:
    """What differs, in words."""
    pipelines = {PIPELINE, PIPELINE_GPU}
    changes = []
    if before.base == BASELINE != after.base:
        changes.append(LOCK)
    if before.processes != after.processes:
        others = "" if before.processes == 1 else f" instead of {before.processes}"
        changes.append(f"{in_words(after.processes)}{others}")
    if after.base in pipelines and before.base not in pipelines:
        changes.append(_BATCHING if after.batches else _INSTANCES)
    if after.base == PIPELINE_GPU != before.base:
        changes.append(_DECODER)
    return changes


def _notes(
    known: dict[tuple[str, int], Row], steps: Sequence[Step], *, on_gpu: bool
) -> Iterator[str]:
    """Why a change has no step of its own."""
    alone = {step.changes[0] for step in steps if len(step.changes) == 1}
    if LOCK not in alone:
        why = "an engine on a GPU needs it" if on_gpu else f"`{CONTROL}` was not measured"
        yield f"No step takes away the lock alone: {why}."
    if all(row.processes == 1 for row in known.values() if row.base != IN_PROCESS):
        yield "No step has more processes: all served in one process here."
    if not any(_DECODER in step.changes for step in steps):
        why = f"`{PIPELINE_GPU}` was not measured" if on_gpu else "the engine runs on the CPU"
        yield f"No step decodes on the GPU: {why}."
    most = max(row.processes for row in known.values() if row.base in {BASELINE, CONTROL})
    if (last := steps[-1].row).processes > most:
        yield (
            f"`{BASELINE}` was not measured with {processes_text(last)}, which might be worth as "
            "much there."
        )
    for step in steps:
        if len(step.changes) > 1:
            yield f"`{step.row.name}` changes {len(step.changes)} things at once: {step.label}."
