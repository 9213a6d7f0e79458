"""What a reader must know before trusting a row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from loadtest.records.run import CLIENTS, Window
from loadtest.report.measured import MeasuredVariant
from measurement.statistics import percentile

_Row = TypeVar("_Row", bound=MeasuredVariant)
_NOISE_PERCENT = 10.0
_STABLE_SHARE = 0.10
_LITTLE_SHARE = 0.05
LAG_SHARE = 0.10
"""A load generator's own lag may be so much of the TP99, or of the limit that it has to hold."""
BUSY_CLIENT_PERCENT = 80.0
"""So much of a core is nearly all that a client process can use."""
_CLOCK_SHARE = 0.01


def is_unstable(row: MeasuredVariant) -> bool:
    """True if a repeat's throughput is off the median by more than a tenth."""
    return not row.qps.within(_STABLE_SHARE)


def is_noisy(row: MeasuredVariant) -> bool:
    """True if processes outside of the measurement worked in at least one window."""
    return any((usage["foreign_percent"] or 0.0) > _NOISE_PERCENT for usage in row.usages)


def is_off_littles_law(row: MeasuredVariant) -> bool:
    """True if QPS x mean latency is off the number of clients by more than 5 %."""
    found = row.concurrency
    if found is None or row.offered_per_s is not None:
        return False
    return abs(found / row.clients - 1) > _LITTLE_SHARE


def is_late_generator(row: MeasuredVariant) -> bool:
    """True if the load generator's own lag is more than a tenth of the TP99.

    Where nothing was answered, which may be its own fault, of the TP99 of the failures.
    """
    lag_ms, tp99_ms = row.lag_ms(0.99), row.tp_ms(0.99)
    if lag_ms is not None and tp99_ms is None:
        tp99_ms = percentile(sorted(record.latency_ms for record in row.records), 0.99)
    return lag_ms is not None and tp99_ms is not None and lag_ms > LAG_SHARE * tp99_ms


def has_lost_worker(row: MeasuredVariant) -> bool:
    """True if a client process ended before the window did."""
    return any(process["lost"] for _, told in _client_processes(row) for process in told)


def has_busy_client(row: MeasuredVariant) -> bool:
    """True if a client process used nearly all of a core."""
    return any(
        (process["cpu_percent"] or 0.0) >= BUSY_CLIENT_PERCENT
        for _, told in _client_processes(row)
        for process in told
    )


def has_unsure_clocks(row: MeasuredVariant) -> bool:
    """True if the workers' clocks may be apart by more than a hundredth of a window."""
    return any(
        clock_error_ms(told) > _CLOCK_SHARE * 1000 * window.length_s
        for window, told in _client_processes(row)
    )


def _client_processes(row: MeasuredVariant) -> Iterator[tuple[Window, list[dict[str, Any]]]]:
    return ((window, window.details.get(CLIENTS, [])) for window in row.windows)


def clock_error_ms(processes: Sequence[Mapping[str, Any]]) -> float:
    """How far client processes' clocks may be off, by exchanges and drift; 0 for the same clock."""
    return max(
        (
            process["clock_within_ms"] + abs(process["clock_drift_ms"])
            for process in processes
            if "clock_within_ms" in process
        ),
        default=0.0,
    )


@dataclass(frozen=True)
class Mark:
    """One thing of this kind.

    Attributes:
        name: as tables have it.
        applies: whether it is so.
        warning: what is so, in full.
        doubt: the same of rows with these `{names}`, in a few plain words.
    """

    name: str
    applies: Callable[[MeasuredVariant], bool]
    warning: str
    doubt: str


MARKS = (
    Mark(
        "unstable",
        is_unstable,
        "QPS of at least one repeat is more than 10 % off the median",
        "repeats of {names} differ by more than 10 %",
    ),
    Mark(
        "noisy",
        is_noisy,
        "processes outside of the measurement used more than 10 % of a core in at least one window",
        "other programs used the machine while {names} ran",
    ),
    Mark(
        "off Little's law",
        is_off_littles_law,
        "QPS x mean latency is more than 5 % off the number of clients, so time passes outside of "
        "the calls; where the client CPU is near 100 %, take more --client_processes",
        "the load generator may have held {names} back",
    ),
    Mark(
        "errors",
        lambda row: bool(row.failed_images),
        "images without a right answer, which are in no latency",
        "images to {names} got no right answer",
    ),
    Mark(
        "late generator",
        is_late_generator,
        "the load generator's own lag is more than a tenth of the TP99, which contains it; take "
        "more --client_processes, or another machine for them",
        "the load generator was late itself, which the latencies of {names} contain",
    ),
    Mark(
        "lost worker",
        has_lost_worker,
        "a worker of the load was lost and the window ended then: this is no result of the load "
        "that was asked for",
        "a worker that sent load to {names} was lost",
    ),
    Mark(
        "busy client",
        has_busy_client,
        f"a client process used {BUSY_CLIENT_PERCENT:g} % of a core or more, so that it may be the "
        "limit; take more client processes",
        "a client process of {names} may have been the limit",
    ),
    Mark(
        "unsure clocks",
        has_unsure_clocks,
        "the workers' clocks may be apart by more than a hundredth of the window, and so may its "
        "edges; take a longer --duration_s",
        "the clocks of the workers of {names} could not be compared well",
    ),
)


def marks_of(row: MeasuredVariant) -> list[str]:
    """The names of a row's marks."""
    return [mark.name for mark in MARKS if mark.applies(row)]


def marked(rows: Sequence[_Row]) -> Iterator[tuple[Mark, list[_Row]]]:
    """The marks that some of these rows have, with those."""
    for mark in MARKS:
        if found := [row for row in rows if mark.applies(row)]:
            yield mark, found
