"""`report diff A B`: what changed between two measured folders beyond noise, and what differs.

The two were measured apart, so that no repeats pair. Intervals hold how much the repeats of each
folder scatter, and nothing of what the machine did in between.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interfaces.markdown import aligned_table
from loadtest.errors import UsageError
from loadtest.records import raw_files
from loadtest.records.metrics import NOT_AVAILABLE, number
from loadtest.records.run import Run, WorkloadRun
from loadtest.report.load_page import found_verdict
from loadtest.report.row_text import clients_text
from loadtest.report.summary import Row, summarise, sweep_rows, tail_change
from loadtest.report.tables import Columns, interval, table
from measurement.statistics import Interval, unpaired_ratio

_KINDS = ("compare", "sweep", "run")
# Of the load: with another value other work was done.
_SAME_LOAD = ("request_client", "request_batch", "arrivals_per_s")
# What says nothing of a result.
_IRRELEVANT = ("port", "host", "variants", "workloads", "clients")
_SHOWN_CHARACTERS = 60
_NOTHING = "No setting differs."


@dataclass(frozen=True)
class Change:
    """A row of one folder beside that of the other one.

    Attributes:
        before: of the first folder.
        after: of the second one.
        rate: images per second, after to before.
        rate_interval: of that.
        gain: the ratio to the reference within each folder, after to before; None where either has
            none.
        gain_interval: of that.
    """

    before: Row
    after: Row
    rate: float
    rate_interval: Interval
    gain: float | None
    gain_interval: Interval | None

    @property
    def name(self) -> str:
        """The variant, and its number of clients in a sweep."""
        clients = f", {clients_text(self.after)}" if self.after.windows[0].clients else ""
        return f"`{self.after.name}`{clients}"


def difference(before: Path, after: Path) -> str:
    """What changed, as text for a terminal.

    Raises:
        LoadTestError: a folder cannot be read, or the two cannot be compared.
    """
    runs = [raw_files.read(folder) for folder in (before, after)]
    if problem := next(_problems(*runs), ""):
        raise UsageError(f"{str(before)!r} and {str(after)!r} cannot be compared: {problem}")
    lines = [
        f"A: {before} ({runs[0].started})",
        f"B: {after} ({runs[1].started})",
        "",
    ]
    for one, other in _common_workloads(*runs):
        changes = _changes((runs[0], one), (runs[1], other))
        lines += [f"{other.name}:", *(f"- {told}" for told in _sentences(changes))]
        lines += [f"- {told}" for told in _decisions((runs[0], one), (runs[1], other))]
        lines += ["", table(_COLUMNS, changes)]
    differing = [*_differences(*runs)]
    lines += [
        "The two were not measured in turns: what the machine did in between is in no interval. "
        "Ratios to the baseline are of one folder each, and suffer less from it.",
    ]
    if any(what.startswith("machine") for what, _, _ in differing):
        lines.append("The machines differ: QPS and latencies compare these, too.")
    settings = aligned_table(("What differs", "A", "B"), differing)
    lines += ["", settings if differing else "No setting differs."]
    return "\n".join(lines)


def _problems(before: Run, after: Run) -> Iterator[str]:
    """Why two runs cannot be compared."""
    for run in (before, after):
        if run.kind not in _KINDS:
            yield f"a run of {run.kind!r} is none of {', '.join(_KINDS)}"
    if before.kind != after.kind:
        yield f"one is a run of {before.kind!r}, the other one of {after.kind!r}"
    for name in _SAME_LOAD:
        values = [run.settings.get(name) for run in (before, after)]
        if values[0] != values[1]:
            yield f"{name} is {values[0]} in one and {values[1]} in the other, which is other work"
    if _hashes(before) != _hashes(after):
        yield "other images were sent"
    common = [*_common_workloads(before, after)]
    if not common:
        names = [", ".join(w.name for w in run.workloads) for run in (before, after)]
        yield f"no workload is in both: {names[0]} and {names[1]}"
    for one, other in common:
        if one.model_sha256 != other.model_sha256:
            yield f"{one.name} is another model, whose SHA-256 differs"
        if not _changes((before, one), (after, other)):
            names = [", ".join(v.name for v in w.variants) for w in (one, other)]
            yield f"{one.name} has no row in both: {names[0]} and {names[1]}"


def _hashes(run: Run) -> set[str]:
    return {image["sha256"] for image in run.images}


def _common_workloads(before: Run, after: Run) -> Iterator[tuple[WorkloadRun, WorkloadRun]]:
    known = {workload.name: workload for workload in before.workloads}
    for workload in after.workloads:
        if workload.name in known:
            yield known[workload.name], workload


def _rows(run: Run, workload: WorkloadRun) -> dict[tuple[str, int], Row]:
    rows = (sweep_rows if run.kind == "sweep" else summarise)(run, workload)
    return {(row.name, row.clients): row for row in rows}


def _changes(before: tuple[Run, WorkloadRun], after: tuple[Run, WorkloadRun]) -> list[Change]:
    """The rows that both have and that answered something."""
    known, changes = _rows(*before), []
    for key, row in _rows(*after).items():
        other = known.get(key)
        if other is None or min(*row.rates.values(), *other.rates.values()) <= 0:
            continue
        rate, rate_interval = unpaired_ratio([*row.rates.values()], [*other.rates.values()])
        gain, gain_interval = None, None
        gains, earlier = _gains(row), _gains(other)
        if gains and earlier and row.reference == other.reference:
            gain, gain_interval = unpaired_ratio(gains, earlier)
        changes.append(Change(other, row, rate, rate_interval, gain, gain_interval))
    return changes


def _gains(row: Row) -> list[float]:
    """Its ratios to the reference, repeat by repeat."""
    return [] if row.ratio is None else row.ratios_to(row.reference)


def _moved(bounds: Interval) -> str:
    if bounds.low is None:
        return "one repeat"
    return "yes" if bounds.excludes(1) else "no"


def _tail_moved(change: Change) -> str:
    if not change.before.latencies_ms or not change.after.latencies_ms:
        return NOT_AVAILABLE
    return tail_change(change.before, change.after) or "no"


_COLUMNS: Columns[Change] = (
    ("Variant", lambda change: change.name.replace("`", "")),
    ("QPS A", lambda change: number(change.before.qps.median)),
    ("QPS B", lambda change: number(change.after.qps.median)),
    ("B / A", lambda change: f"{change.rate:.3f} {interval(change.rate_interval, 3)}"),
    ("beyond noise", lambda change: _moved(change.rate_interval)),
    ("x reference A", lambda change: _own_gain(change.before)),
    ("B", lambda change: _own_gain(change.after)),
    (
        "B / A",
        lambda change: (
            NOT_AVAILABLE
            if change.gain is None
            else f"{change.gain:.3f} {interval(change.gain_interval, 3)}"
        ),
    ),
    ("TP99 ms A", lambda change: number(change.before.tp_ms(0.99), 2)),
    ("B", lambda change: number(change.after.tp_ms(0.99), 2)),
    ("beyond noise", _tail_moved),
)


def _own_gain(row: Row) -> str:
    return NOT_AVAILABLE if row.ratio is None else f"{row.ratio.spread.median:.2f}"


def _sentences(changes: Sequence[Change]) -> Iterator[str]:
    """What moved beyond noise, and what did not."""
    still, unknown = [], []
    for change in changes:
        parts = []
        if change.rate_interval.excludes(1):
            faster = "more" if change.rate > 1 else "fewer"
            parts.append(
                f"{abs(change.rate - 1) * 100:.1f} % {faster} images per second "
                f"({change.rate:.3f} times {interval(change.rate_interval, 3)})"
            )
        if change.gain is not None and change.gain_interval and change.gain_interval.excludes(1):
            parts.append(
                f"its ratio to `{change.after.reference}` is {change.gain:.3f} times what it was "
                f"{interval(change.gain_interval, 3)}"
            )
        if tail := tail_change(change.before, change.after):
            before, after = change.before.tp_ms(0.99), change.after.tp_ms(0.99)
            parts.append(f"a {tail} TP99 ({number(before)} to {number(after)} ms)")
        if parts:
            yield f"{change.name}: {'; '.join(parts)}."
        elif change.rate_interval.low is None:
            unknown.append(f"{change.name} ({change.rate:.3f} times)")
        else:
            still.append(change.name)
    if unknown:
        yield (
            f"One repeat shows no noise, so that whether images per second changed is not known: "
            f"{', '.join(unknown)}."
        )
    if still:
        yield f"Nothing changed beyond noise: {', '.join(still)}."


def _decisions(before: tuple[Run, WorkloadRun], after: tuple[Run, WorkloadRun]) -> Iterator[str]:
    """Another verdict, where there are verdicts."""
    if before[0].kind == "compare":
        told = [found_verdict(*one, summarise(*one)).decision.title for one in (before, after)]
        yield (
            f"The verdict is the same: {told[0]}."
            if told[0] == told[1]
            else f"The verdict is another one: {told[0]}, now {told[1]}."
        )


def _differences(before: Run, after: Run) -> Iterator[tuple[str, str, str]]:
    """What differs of machine, source, settings and servers: its name, and both values."""
    one, other = (dict(_facts(run)) for run in (before, after))
    for name in dict.fromkeys((*one, *other)):
        if one.get(name) != other.get(name):
            yield name, _shown(one.get(name)), _shown(other.get(name))


def _facts(run: Run) -> Iterator[tuple[str, Any]]:
    for room, values in (
        ("machine", run.machine),
        ("source", run.source),
        ("load test's", run.versions),
        ("setting", run.settings),
    ):
        for name, value in values.items():
            if name not in _IRRELEVANT:
                yield f"{room} {name}", value
    yield from _versions(run)
    for workload in run.workloads:
        yield f"{workload.name} engine", workload.engine
        yield f"{workload.name} precision", workload.precision
        for variant in workload.variants:
            yield from _server_facts(f"{workload.name} {variant.name}", variant.server or {})


def _server_facts(name: str, server: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    yield f"{name} workers", server.get("workers")
    for key, value in server.get("settings", {}).items():
        yield f"{name} {key}", value


def _versions(run: Run) -> Iterator[tuple[str, Any]]:
    """Packages of all servers, which share them."""
    found: dict[str, dict[str, None]] = {}
    for workload in run.workloads:
        for variant in workload.variants:
            for package, version in (variant.server or {}).get("versions", {}).items():
                found.setdefault(package, {})[version] = None
    for package, versions in found.items():
        yield f"servers' {package}", ", ".join(versions)


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 3]}..."
