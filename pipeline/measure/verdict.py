"""What was asked of the runtime, and whether a run shows it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.measure import summary
from pipeline.measure.sides import ANCHOR, OURS
from pipeline.measure.summary import Measured, Spread

TWO_CLIENTS_P99_MS = 13.0
TEN_CLIENTS_MEAN_BATCH = 3.5
LATE_P99_MS = 15.0
WAITING_CPU_S = 0.01
OVERHEAD_CPU_US = 60.0
OVERHEAD_WALL_RATIO = 1.5
# The smallest object of the interpreter: one that is lost with every item shows.
GROWTH_BYTES_AN_ITEM = 16.0


@dataclass(frozen=True)
class Verdict:
    """One requirement.

    Attributes:
        asked: in words.
        found: the measured value in words.
        met: whether it is met; None where it was not measured.
    """

    asked: str
    found: str
    met: bool | None


def verdicts(run: Mapping[str, Any]) -> list[Verdict]:
    """All requirements of a run's kind."""
    return _VERDICTS[run["kind"]](run)


def _ours(run: Mapping[str, Any], part: str) -> Measured:
    found = summary.measured(run, part, OURS)
    if found is None:
        raise ValueError(f"{part} was not measured")
    return found


def _batching(run: Mapping[str, Any]) -> list[Verdict]:
    two, ten = _ours(run, "clients-2"), _ours(run, "clients-10")
    p99_ms, batch = two.percentile_ms(0.99), ten.mean_batch
    lines = [
        Verdict(
            f"2 clients: TP99 at most {TWO_CLIENTS_P99_MS:g} ms",
            f"{p99_ms:.2f} ms",
            p99_ms <= TWO_CLIENTS_P99_MS,
        ),
        Verdict(
            f"10 clients: mean batch at least {TEN_CLIENTS_MEAN_BATCH:g}",
            f"{batch:.2f}",
            batch >= TEN_CLIENTS_MEAN_BATCH,
        ),
        _compared(
            "10 clients: TP50 no worse than torchpipe's, to a percent",
            ten.percentiles_ms(0.50),
            summary.measured(run, "clients-10", ANCHOR),
            lambda anchor: anchor.percentiles_ms(0.50),
            1.0,
        ),
    ]
    for busy in (0, 1, 2):
        late_ms = _ours(run, f"late-{busy}-busy").percentile_ms(0.99)
        lines.append(
            Verdict(
                f"a lone late request, {busy} of 2 instances at work: TP99 at most "
                f"{LATE_P99_MS:g} ms",
                f"{late_ms:.2f} ms",
                late_ms <= LATE_P99_MS,
            )
        )
    for part in (part["name"] for part in run["parts"] if part["name"].startswith("wait-")):
        found = _ours(run, part)
        cpu_s = max(found.cpu_s)
        lines.append(
            Verdict(
                f"{part}: at most {WAITING_CPU_S:g} CPU-s while waiting, in every repeat",
                "did not wait" if found.refused or found.ended_early else f"{cpu_s:.4f} CPU-s",
                cpu_s <= WAITING_CPU_S and not found.refused and not found.ended_early,
            )
        )
    return lines


def _compared(
    asked: str,
    values: list[float],
    anchor: Measured | None,
    of_anchor: Callable[[Measured], list[float]],
    limit: float,
) -> Verdict:
    """A requirement on the median of the ratios to torchpipe, repeat by repeat."""
    if anchor is None:
        return Verdict(asked, "torchpipe was not measured", None)
    ratio = summary.paired_ratio(values, of_anchor(anchor))
    return Verdict(asked, _ratio(ratio), round(ratio.median, 2) <= limit)


def _ratio(ratio: Spread) -> str:
    return f"{ratio.median:.2f} x torchpipe's [{ratio.low:.2f}, {ratio.high:.2f}]"


def _overhead(run: Mapping[str, Any]) -> list[Verdict]:
    lines = []
    for part in (part["name"] for part in run["parts"]):
        ours = _ours(run, part)
        cpu_us = Spread.of(ours.cpu_us_an_item).median
        lines += [
            Verdict(
                f"{part}: at most {OVERHEAD_CPU_US:g} us of CPU an item",
                f"{cpu_us:.1f} us",
                cpu_us <= OVERHEAD_CPU_US,
            ),
            _compared(
                f"{part}: wall time an item at most {OVERHEAD_WALL_RATIO:g} x torchpipe's",
                ours.wall_us_an_item,
                summary.measured(run, part, ANCHOR),
                lambda anchor: anchor.wall_us_an_item,
                OVERHEAD_WALL_RATIO,
            ),
        ]
    return lines


def _integrity(run: Mapping[str, Any]) -> list[Verdict]:
    wrong = ", ".join(f"{kind}: {count}" for kind, count in run["findings"].items())
    growth = summary.bytes_an_item(run["samples"])
    return [
        Verdict(
            "no item lost, duplicated or swapped", wrong or f"none of {run['items']}", not wrong
        ),
        Verdict(
            f"memory grows by less than {GROWTH_BYTES_AN_ITEM:g} bytes an item",
            "too few samples" if growth is None else f"{growth:.2f} bytes an item",
            None if growth is None else growth < GROWTH_BYTES_AN_ITEM,
        ),
    ]


_VERDICTS: Mapping[str, Callable[[Mapping[str, Any]], list[Verdict]]] = {
    "batching": _batching,
    "overhead": _overhead,
    "integrity": _integrity,
}
