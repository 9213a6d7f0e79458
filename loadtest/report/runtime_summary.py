"""What the windows of the runtime's sides amount to, and what is asked of them."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from loadtest.records.run import Check, Run
from loadtest.runtime.parts import OURS, REFERENCE
from measurement.statistics import Spread, percentile

TWO_CLIENTS_P99_MS = 13.0
TEN_CLIENTS_MEAN_BATCH = 3.5
LATE_P99_MS = 15.0
WAITING_CPU_S = 0.01
OVERHEAD_CPU_US = 60.0
_OVERHEAD_WALL_RATIO = 1.5
# The smallest object of the interpreter: one that is lost with every item shows.
_GROWTH_BYTES_AN_ITEM = 16.0


@dataclass(frozen=True)
class SideWindows:
    """The windows of one part on one side, in the order of the repeats."""

    windows: Sequence[Mapping[str, Any]]

    @property
    def latencies_ms(self) -> list[float]:
        """Of all repeats together, ascending."""
        return sorted(ms for window in self.windows for ms in window["latencies_ms"])

    def tp_ms(self, q: float) -> float:
        """TPxx of all repeats together."""
        return percentile(self.latencies_ms, q)

    def tp_spread(self, q: float) -> Spread:
        """TPxx over the repeats."""
        return Spread.of(self.tps_ms(q))

    def tps_ms(self, q: float) -> list[float]:
        """TPxx of each repeat."""
        return [percentile(sorted(window["latencies_ms"]), q) for window in self.windows]

    def each(self, name: str) -> list[float]:
        """A value of each repeat, such as "cpu_s"."""
        return [float(window[name]) for window in self.windows]

    def us_an_item(self, name: str) -> list[float]:
        """A time of each repeat, shared by its items: "wall_s", or "cpu_s" of the whole process."""
        return [1e6 * window[name] / window["items"] for window in self.windows]

    @property
    def items_per_s(self) -> list[float]:
        """Of each repeat."""
        return [window["items"] / window["wall_s"] for window in self.windows]

    @property
    def mean_batch(self) -> float:
        """Items of a batch over all repeats."""
        batches: Counter[str] = Counter()
        for window in self.windows:
            batches.update(window["batch_sizes"])
        return sum(int(size) * count for size, count in batches.items()) / batches.total()

    @property
    def refused(self) -> str | None:
        """Why the calls were not let wait, or None."""
        return next((window["refused"] for window in self.windows if window["refused"]), None)

    @property
    def ended_early(self) -> bool:
        """Whether items did not wait as long as the CPU time was measured."""
        return any(window["batches_begun"] for window in self.windows)


def windows_of(run: Run, part: str, side: str) -> SideWindows | None:
    """The windows of a part on a side; None where that side was not measured."""
    windows = [w for w in run.results["windows"] if w["part"] == part and w["side"] == side]
    return SideWindows(windows) if windows else None


def sides(run: Run) -> list[str]:
    """The sides that were measured, ours first."""
    seen = {window["side"] for window in run.results["windows"]}
    return [side for side in (OURS, REFERENCE) if side in seen]


def idle_share(run: Run, side: str) -> float:
    """CPU time of a side's process between its windows, as a share of the others' windows' time.

    A side that keeps a core busy while the other one is measured disturbs it.
    """
    windows = run.results["windows"]
    own = [window["process_cpu_s"] for window in windows if window["side"] == side]
    between_s = sum(float(after[0] - before[1]) for before, after in pairwise(own))
    others_s = sum(float(w["elapsed_s"]) for w in windows if w["side"] != side)
    return between_s / others_s if others_s else 0.0


def bytes_an_item(samples: Sequence[Mapping[str, float]]) -> float | None:
    """Growth of memory over the items: the slope of a line through the second half of the samples.

    In the first half what failed items leave to the garbage collector (an exception and the frames
    that it passed refer to each other) still adds up to what one collection of everything frees.

    Returns:
        Bytes an item, or None for fewer than three samples.
    """
    kept = [sample for sample in samples if sample["items"] >= samples[-1]["items"] / 2]
    items = [sample["items"] for sample in kept]
    if len(set(items)) < 3:
        return None
    memory = [sample["rss_bytes"] for sample in kept]
    return float(statistics.linear_regression(items, memory).slope)


def runtime_checks(run: Run) -> list[Check]:
    """All that is asked of a run of this kind."""
    return _CHECKS[run.kind](run)


def _ours(run: Run, part: str) -> SideWindows:
    found = windows_of(run, part, OURS)
    if found is None:
        raise ValueError(f"{part} was not measured")
    return found


def _at_most(name: str, limit: float, unit: str, value: float, digits: int) -> Check:
    return Check(name, f"at most {limit:g} {unit}", f"{value:.{digits}f} {unit}", value <= limit)


def _batching(run: Run) -> list[Check]:
    ten = _ours(run, "clients-10")
    batch = ten.mean_batch
    checks = [
        _at_most(
            "2 clients: TP99", TWO_CLIENTS_P99_MS, "ms", _ours(run, "clients-2").tp_ms(0.99), 2
        ),
        Check(
            "10 clients: mean batch",
            f"at least {TEN_CLIENTS_MEAN_BATCH:g}",
            f"{batch:.2f}",
            batch >= TEN_CLIENTS_MEAN_BATCH,
        ),
        _compared(
            "10 clients: TP50",
            "no worse than torchpipe's, to a percent",
            ten.tps_ms(0.50),
            windows_of(run, "clients-10", REFERENCE),
            lambda reference: reference.tps_ms(0.50),
            1.0,
        ),
    ]
    checks += [
        _at_most(
            f"a lone late request, {busy} of 2 instances at work: TP99",
            LATE_P99_MS,
            "ms",
            _ours(run, f"late-{busy}-busy").tp_ms(0.99),
            2,
        )
        for busy in (0, 1, 2)
    ]
    for part in run.results["parts"]:
        if part["name"].startswith("wait-"):
            found = _ours(run, part["name"])
            waited = not found.refused and not found.ended_early
            cpu_s = max(found.each("cpu_s"))
            checks.append(
                Check(
                    f"{part['name']}: CPU time while waiting",
                    f"at most {WAITING_CPU_S:g} CPU-s in every repeat",
                    f"{cpu_s:.4f} CPU-s" if waited else "did not wait",
                    waited and cpu_s <= WAITING_CPU_S,
                )
            )
    return checks


def _compared(
    name: str,
    bound: str,
    values: list[float],
    reference: SideWindows | None,
    of_reference: Callable[[SideWindows], list[float]],
    limit: float,
) -> Check:
    """A requirement on the median of the ratios to torchpipe, repeat by repeat."""
    if reference is None:
        return Check(name, bound, "torchpipe was not measured", None)
    pairs = zip(values, of_reference(reference), strict=True)
    ratio = Spread.of([value / other for value, other in pairs])
    measured = f"{ratio.median:.2f} x torchpipe's [{ratio.low:.2f}, {ratio.high:.2f}]"
    return Check(name, bound, measured, round(ratio.median, 2) <= limit)


def _overhead(run: Run) -> list[Check]:
    checks = []
    for part in (part["name"] for part in run.results["parts"]):
        ours = _ours(run, part)
        cpu_us = Spread.of(ours.us_an_item("cpu_s")).median
        checks += [
            _at_most(f"{part}: CPU an item", OVERHEAD_CPU_US, "us", cpu_us, 1),
            _compared(
                f"{part}: wall time an item",
                f"at most {_OVERHEAD_WALL_RATIO:g} x torchpipe's",
                ours.us_an_item("wall_s"),
                windows_of(run, part, REFERENCE),
                lambda reference: reference.us_an_item("wall_s"),
                _OVERHEAD_WALL_RATIO,
            ),
        ]
    return checks


def _integrity(run: Run) -> list[Check]:
    found = run.results
    wrong = ", ".join(f"{kind}: {count}" for kind, count in found["findings"].items())
    growth = bytes_an_item(found["samples"])
    return [
        Check(
            "items lost, duplicated or swapped",
            "none",
            wrong or f"none of {found['items']}",
            not wrong,
        ),
        Check(
            "memory grows",
            f"by less than {_GROWTH_BYTES_AN_ITEM:g} bytes an item",
            "too few samples" if growth is None else f"{growth:.2f} bytes an item",
            None if growth is None else growth < _GROWTH_BYTES_AN_ITEM,
        ),
    ]


_CHECKS: Mapping[str, Callable[[Run], list[Check]]] = {
    "batching": _batching,
    "overhead": _overhead,
    "integrity": _integrity,
}
