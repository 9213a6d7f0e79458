"""What a sweep says: who serves most within the limit, and by what factor, in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

from loadtest.records.metrics import number
from loadtest.report.row_text import clients_text
from loadtest.report.summary import Row, best_row
from loadtest.report.tables import factor_interval
from loadtest.servers.variants import BASELINE


def best_rows(rows: Sequence[Row], limit_ms: float) -> dict[str, Row]:
    """Variant to its point with the most throughput within the limit, in table order.

    Args:
        rows: of a workload, those of a variant side by side.
        limit_ms: of the TP99.
    """
    found = {name: best_row([*group], limit_ms) for name, group in groupby(rows, lambda r: r.name)}
    return {name: row for name, row in found.items() if row is not None}


def sweep_findings(rows: Sequence[Row], limit_ms: float) -> list[str]:
    """Sentences, of which the first one is the verdict.

    Args:
        rows: of a workload, those of a variant side by side.
        limit_ms: of the TP99.
    """
    best = best_rows(rows, limit_ms)
    return [_verdict(best, rows, limit_ms), *_others(best, rows), *_most(rows)]


def _verdict(best: Mapping[str, Row], rows: Sequence[Row], limit_ms: float) -> str:
    if not best:
        return (
            f"No variant has a point with TP99 <= {limit_ms:g} ms and every image right; "
            f"{_nearest(rows)}."
        )
    first = max(best.values(), key=lambda row: row.qps.median)
    limit = f"TP99 <= {limit_ms:g} ms"
    point = (
        f"{first.qps.median:.1f} images per second with {clients_text(first)} "
        f"(TP99 {number(first.tp_ms(0.99), 2)} ms)"
    )
    most = f"**`{first.name}` serves the most with {limit}: {point}**"
    others = {name: row for name, row in best.items() if name != first.name}
    if not others:
        if any(row.name != first.name for row in rows):
            return f"{most}."
        return (
            f"**`{first.name}` serves at its best with {limit}: {point}**; it was measured alone."
        )
    other = others.get(BASELINE) or max(others.values(), key=lambda row: row.qps.median)
    factor = _factor(first, other)
    if (ratio := first.ratio_to_row(other)) is not None and ratio.is_distinct:
        return f"{most}, which is {factor}."
    return (
        f"**It is not proven which serves the most with {limit}**: `{first.name}` serves {point}, "
        f"which is {factor}."
    )


def _factor(row: Row, other: Row) -> str:
    """How many times as much a row serves as another one, and how sure that is."""
    at = f"`{other.name}` at its best ({other.qps.median:.1f} with {clients_text(other)}"
    if (ratio := row.ratio_to_row(other)) is None:
        return f"not to be compared with {at}): no repeat has both"
    factor = f"{ratio.spread.median:.2f} times what is served by {at}"
    if ratio.interval.low is None:
        return f"{factor}); one repeat shows no spread, so this proves nothing"
    text = (
        f"{factor}; {ratio.pairs} paired repeats, 95 % interval {factor_interval(ratio.interval)})"
    )
    return text if ratio.is_distinct else f"{text}: no difference beyond chance"


def _others(best: Mapping[str, Row], rows: Sequence[Row]) -> Iterator[str]:
    """Variants that are not within the limit anywhere."""
    if not best:
        return
    for name, group in groupby(rows, lambda row: row.name):
        if name not in best:
            yield f"`{name}` has no point within the limit; {_nearest([*group])}."


def _nearest(rows: Sequence[Row]) -> str:
    known = [(ms, row) for row in rows if (ms := row.tp_ms(0.99)) is not None]
    if not known:
        return "nothing was answered"
    tp99_ms, row = min(known, key=lambda pair: pair[0])
    wrong = f", with {row.failed_images} images without a right answer" * bool(row.failed_images)
    return f"the least TP99 is {tp99_ms:.2f} ms (`{row.name}` with {clients_text(row)}{wrong})"


def _most(rows: Sequence[Row]) -> Iterator[str]:
    """What each variant serves at most, whatever its TP99."""
    for name, group in groupby(rows, lambda row: row.name):
        most = max(group, key=lambda row: row.qps.median)
        yield (
            f"`{name}`: at most {most.qps.median:.1f} images per second, with {clients_text(most)} "
            f"(TP99 {number(most.tp_ms(0.99), 2)} ms)."
        )
