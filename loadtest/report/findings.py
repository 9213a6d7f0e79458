"""What the numbers of a workload say, in sentences that follow from them alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import log

from loadtest.records.run import PartRun
from loadtest.report.marks import marked
from loadtest.report.row_text import ran_in
from loadtest.report.summary import Row
from loadtest.report.tables import factor_interval
from loadtest.servers.variants import BASELINE, CONTROL, IN_PROCESS, PIPELINE, PIPELINE_GPU
from measurement.statistics import Ratio

# What a variant is made of, as far as it is measured alone.
_PARTS = {
    PIPELINE: ("engine-alone", "decode-alone-cpu"),
    PIPELINE_GPU: ("engine-alone-gpu", "decode-alone-gpu"),
}


def findings(rows: Sequence[Row], parts: Sequence[PartRun] = ()) -> list[str]:
    """Sentences on the speed-up, what lock and processes explain, the tail, and the upper bound.

    Args:
        rows: of one workload.
        parts: parts of the service that were measured alone.
    """
    # Of several numbers of processes the first row's is spoken of.
    by_base = {row.base: row for row in reversed(rows)}
    sentences = [
        _compare(row.name, row.reference, row.ratio)
        for row in rows
        if row.ratio is not None and row.name != IN_PROCESS
    ]
    sentences += [
        *_lock(by_base),
        *_equal_processes(rows),
        *_latencies(by_base),
        *_upper_bound(by_base),
        *_slowest_part(rows, parts),
        *_warnings(rows),
    ]
    return sentences or ["One server alone was measured; there is nothing to compare it with."]


def _lock(by_base: Mapping[str, Row]) -> Iterator[str]:
    """What the lock explains, where a control was measured."""
    pipeline, control = by_base.get(PIPELINE), by_base.get(CONTROL)
    if pipeline is None or control is None or BASELINE not in by_base:
        return
    if pipeline.ratio is not None and control.ratio is not None:
        yield _explained_by_lock(pipeline, pipeline.ratio, control.ratio)
    if (to_control := pipeline.ratio_to(control.name)) is not None:
        yield _compare(pipeline.name, control.name, to_control)


def _equal_processes(rows: Sequence[Row]) -> Iterator[str]:
    """What several processes do for the baseline, and what the pipeline has beyond that."""
    others = [row for row in rows if row.base in {BASELINE, CONTROL}]
    for row in rows:
        if row.base not in {PIPELINE, PIPELINE_GPU} or row.processes == 1:
            continue
        for other in others:
            if other.processes == row.processes and (ratio := row.ratio_to(other.name)):
                yield _compare(row.name, other.name, ratio)


def _latencies(by_base: Mapping[str, Row]) -> Iterator[str]:
    if baseline := by_base.get(BASELINE):
        for name in (PIPELINE, PIPELINE_GPU):
            if name in by_base:
                yield _latency(by_base[name], baseline)


def _upper_bound(by_base: Mapping[str, Row]) -> Iterator[str]:
    pipeline = by_base.get(PIPELINE)
    if pipeline is not None and pipeline.share_of_bound is not None:
        yield (
            f"`{pipeline.name}` reaches {100 * pipeline.share_of_bound:.0f} % of what its "
            "preprocessing and engine do without a server "
            f"(`{IN_PROCESS}`{ran_in(by_base[IN_PROCESS])})."
        )


def _slowest_part(rows: Sequence[Row], parts: Sequence[PartRun]) -> Iterator[str]:
    """The upper bound where none runs in one piece: each part alone, at its best batch size."""
    if any(row.name == IN_PROCESS for row in rows):
        return
    rates = {part.name: max(part.images_per_s.values(), default=0.0) for part in parts}
    for base, names in _PARTS.items():
        pipelines = [row for row in rows if row.base == base]
        if not pipelines or any(rates.get(name, 0.0) <= 0 for name in names):
            continue
        best = max(pipelines, key=lambda row: row.qps.median)
        slowest = min(names, key=lambda name: rates[name])
        yield (
            f"`{best.name}` reaches {100 * best.qps.median / rates[slowest]:.0f} % of its slower "
            f"part alone, which is `{slowest}` with {rates[slowest]:.0f} images per second."
        )


def _warnings(rows: Sequence[Row]) -> Iterator[str]:
    for mark, found in marked(rows):
        yield f"Read with care: {mark.warning} ({', '.join(row.name for row in found)})."


def _compare(name: str, reference: str, ratio: Ratio) -> str:
    """How many images per second a variant serves, as a multiple of another's."""
    text = (
        f"`{name}` serves {ratio.spread.median:.2f} times the images per second of `{reference}` "
        f"(median of {ratio.pairs} paired repeats; 95 % interval {factor_interval(ratio.interval)})"
    )
    if ratio.interval.low is None:
        return f"{text}; one repeat shows no spread, so this proves nothing."
    if not ratio.is_distinct:
        return f"{text}: these repeats show no difference beyond chance."
    return f"{text}: it is {'faster' if ratio.spread.median > 1 else 'slower'}."


def _explained_by_lock(pipeline: Row, whole: Ratio, control: Ratio) -> str:
    gain, without_lock = whole.spread.median, control.spread.median
    if gain <= 1 or not whole.is_distinct:
        return (
            f"`{pipeline.name}` has no proven gain over `{BASELINE}` that the lock could explain."
        )
    if without_lock <= 1:
        return "Taking the lock away alone gains nothing here; the whole gain has other reasons."
    share = log(without_lock) / log(gain)
    if share >= 1:
        return "Taking the lock away alone explains the whole gain."
    return f"Taking the lock away alone explains {100 * share:.0f} % of the gain (as logarithms)."


def _latency(pipeline: Row, baseline: Row) -> str:
    parts = []
    for name, q in (("TP50", 0.50), ("TP99", 0.99)):
        before, after = baseline.tp_ms(q), pipeline.tp_ms(q)
        if before is None or after is None:
            return "A variant answered nothing, so latencies cannot be compared."
        parts.append(f"{name} goes from {before:.1f} to {after:.1f} ms")
    return f"From `{BASELINE}` to `{pipeline.name}` {' and '.join(parts)}."
