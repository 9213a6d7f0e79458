"""What the numbers of a workload say, in sentences that follow from them alone."""

from __future__ import annotations

from collections.abc import Sequence
from math import log

from loadtest.statistics import Ratio
from loadtest.summary import VariantSummary
from loadtest.tables import interval
from loadtest.variants import BASELINE, CONTROL, IN_PROCESS, PIPELINE, PIPELINE_GPU


def verdict(rows: Sequence[VariantSummary], clients: int) -> list[str]:
    """Sentences on the speed-up, what the lock alone explains, the tail, and the limit."""
    by_name = {row.variant.name: row for row in rows}
    pipeline, baseline = by_name.get(PIPELINE), by_name.get(BASELINE)
    control = by_name.get(CONTROL)
    sentences = [
        _compare(row.variant.name, row.reference, row.ratio)
        for row in rows
        if row.ratio is not None and row.variant.name != IN_PROCESS
    ]
    if pipeline is not None and control is not None and baseline is not None:
        if pipeline.ratio is not None and control.ratio is not None:
            sentences.append(_explained_by_lock(pipeline.ratio, control.ratio))
        if pipeline.control_ratio is not None:
            sentences.append(_compare(PIPELINE, CONTROL, pipeline.control_ratio))
    if baseline is not None:
        sentences += [
            _latency(by_name[name], baseline)
            for name in (PIPELINE, PIPELINE_GPU)
            if name in by_name
        ]
    if pipeline is not None and pipeline.share_of_limit is not None:
        sentences.append(
            f"`{PIPELINE}` reaches {100 * pipeline.share_of_limit:.0f} % of what its preprocessing "
            f"and engine do without a server (`{IN_PROCESS}`)."
        )
    sentences += _warnings(rows, clients)
    return sentences or ["One server alone was measured; there is nothing to compare it with."]


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


def _latency(pipeline: VariantSummary, baseline: VariantSummary) -> str:
    parts = []
    for name, q in (("TP50", 0.50), ("TP99", 0.99)):
        before, after = baseline.pooled_percentile(q), pipeline.pooled_percentile(q)
        if before is None or after is None:
            return "A variant answered nothing, so latencies cannot be compared."
        parts.append(f"{name} goes from {before:.1f} to {after:.1f} ms")
    return f"From `{BASELINE}` to `{pipeline.variant.name}` {' and '.join(parts)}."


def _warnings(rows: Sequence[VariantSummary], clients: int) -> list[str]:
    warnings = []
    for text, names in (
        (
            "somebody else used more than 10 % of a core in at least one window",
            [row.variant.name for row in rows if row.is_noisy],
        ),
        (
            "QPS of at least one repeat is more than 10 % off the median",
            [row.variant.name for row in rows if not row.is_stable],
        ),
        (
            f"QPS x mean latency is more than 5 % off the {clients} clients, so time passes "
            "outside of the calls; where the client CPU is near 100 %, take more "
            "--client_processes",
            [row.variant.name for row in rows if row.little_mismatch(clients)],
        ),
        (
            "images without a right answer",
            [row.variant.name for row in rows if row.failed_images],
        ),
    ):
        if names:
            warnings.append(f"Read with care: {text} ({', '.join(names)}).")
    return warnings
