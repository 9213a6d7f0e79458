"""What the numbers of a workload say, in sentences that follow from them alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import log

from loadtest.report.summary import MARKS, Row
from loadtest.report.tables import interval
from loadtest.servers.variants import BASELINE, CONTROL, IN_PROCESS, PIPELINE, PIPELINE_GPU
from measurement.statistics import Ratio


def findings(rows: Sequence[Row]) -> list[str]:
    """Sentences on the speed-up, what the lock alone explains, the tail, and the upper bound."""
    by_name = {row.name: row for row in rows}
    sentences = [
        _compare(row.name, row.reference, row.ratio)
        for row in rows
        if row.ratio is not None and row.name != IN_PROCESS
    ]
    sentences += [*_lock(by_name), *_latencies(by_name), *_upper_bound(by_name), *_warnings(rows)]
    return sentences or ["One server alone was measured; there is nothing to compare it with."]


def _lock(by_name: Mapping[str, Row]) -> Iterator[str]:
    """What the lock explains, where a control was measured."""
    pipeline, control = by_name.get(PIPELINE), by_name.get(CONTROL)
    if pipeline is None or control is None or BASELINE not in by_name:
        return
    if pipeline.ratio is not None and control.ratio is not None:
        yield _explained_by_lock(pipeline.ratio, control.ratio)
    if (to_control := pipeline.ratio_to(CONTROL)) is not None:
        yield _compare(PIPELINE, CONTROL, to_control)


def _latencies(by_name: Mapping[str, Row]) -> Iterator[str]:
    if baseline := by_name.get(BASELINE):
        for name in (PIPELINE, PIPELINE_GPU):
            if name in by_name:
                yield _latency(by_name[name], baseline)


def _upper_bound(by_name: Mapping[str, Row]) -> Iterator[str]:
    pipeline = by_name.get(PIPELINE)
    if pipeline is not None and pipeline.share_of_bound is not None:
        yield (
            f"`{PIPELINE}` reaches {100 * pipeline.share_of_bound:.0f} % of what its preprocessing "
            f"and engine do without a server (`{IN_PROCESS}`{by_name[IN_PROCESS].ran_in})."
        )


def _warnings(rows: Sequence[Row]) -> Iterator[str]:
    for mark in MARKS:
        if names := [row.name for row in rows if mark.applies(row)]:
            yield f"Read with care: {mark.warning} ({', '.join(names)})."


def _compare(name: str, reference: str, ratio: Ratio) -> str:
    """How many images per second a variant serves, as a multiple of another's."""
    text = (
        f"`{name}` serves {ratio.spread.median:.2f} times the images per second of `{reference}` "
        f"(median of {ratio.pairs} paired repeats; 95 % interval {interval(ratio.interval, 2)})"
    )
    if ratio.interval.low is None:
        return f"{text}; one repeat shows no spread, so this proves nothing."
    if not ratio.is_distinct:
        return f"{text}: these repeats show no difference beyond chance."
    return f"{text}: it is {'faster' if ratio.spread.median > 1 else 'slower'}."


def _explained_by_lock(pipeline: Ratio, control: Ratio) -> str:
    gain, without_lock = pipeline.spread.median, control.spread.median
    if gain <= 1 or not pipeline.is_distinct:
        return f"`{PIPELINE}` has no proven gain over `{BASELINE}` that the lock could explain."
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
