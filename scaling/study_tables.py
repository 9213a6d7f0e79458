"""The simulations as tables in Markdown, and what they say in sentences made of their numbers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from interfaces.markdown import Table, aligned_table
from loadtest.records.metrics import percent
from scaling.measure import CONFIGURED
from scaling.study import FRONT_ENDS, LOADS
from scaling.validation import LATENCY_SHARE, RATE_SHARE, Comparison

Row = dict[str, Any]


def validation_table(comparisons: Sequence[Comparison]) -> Table:
    """Measured beside simulated."""
    rows = []
    for it in comparisons:
        real, simulated = it.measured, it.simulated
        rows.append(
            (
                it.title,
                f"{real.images_per_s:.1f} / {simulated.images_per_s:.1f}",
                f"{real.tp50_ms:.1f} / {simulated.tp50_ms:.1f}",
                f"{real.tp99_ms:.1f} / {simulated.tp99_ms:.1f}",
                f"{percent(100 * real.refused_share)} / {percent(100 * simulated.refused_share)}",
                ", ".join(f"{round(100 * error):+d}" for error in it.errors),
                it.answers,
                "yes" if it.holds else "no",
            )
        )
    return aligned_table(
        [
            *("measured / simulated", "images/s", "TP50 ms", "TP99 ms", "refused"),
            *("off by %", "n", "within bounds"),
        ],
        rows,
    )


def validation_text(comparisons: Sequence[Comparison]) -> str:
    """How many points hold, and the largest errors."""
    held = sum(it.holds for it in comparisons)
    rate, tp50, tp99 = (max(abs(it.errors[k]) for it in comparisons) for k in range(3))
    text = (
        f"{held} of {len(comparisons)} points are within {100 * RATE_SHARE:g} % in throughput and "
        f"{100 * LATENCY_SHARE:g} % in TP50 and TP99; the largest errors are "
        f"{percent(100 * rate, 1)}, {percent(100 * tp50)} and {percent(100 * tp99)}."
    )
    if missed := [it.title for it in comparisons if not it.holds]:
        text += f" Outside: {'; '.join(missed)}."
    return text + "\n"


def group(rows: Iterable[Row], name: str) -> list[Row]:
    """The scenarios of a group."""
    return [row for row in rows if row["group"] == name]


def share(row: Row) -> float:
    """Its load, as a share of what full batches would take."""
    cluster, replica = row["cluster"], row["cluster"]["replica"]
    batch_ms = replica["batch_ms"] + replica["largest"] * replica["image_ms"]
    most = 1000 * cluster["replicas"] * replica["instances"] * replica["largest"] / batch_ms
    return float(row["load"]["images_per_s"] / most)


def setup(rows: Sequence[Row]) -> str:
    """What is simulated where a table says nothing else."""
    cluster = group(rows, "rules")[0]["cluster"]
    replica = cluster["replica"]
    cores = group(rows, "cores")[0]["cluster"]
    hop = ", ".join(f"{ms:g} ms" for ms in cluster["hops_ms"])
    loads = {round(100 * share(row)) for row in group(rows, "reports")}
    return (
        f"{cluster['replicas']:,} replicas of {replica['instances']} instance, whose batches take "
        f"{replica['batch_ms']:g} ms and {replica['image_ms']:g} ms for each of up to "
        f"{replica['largest']} images: {replica['batch_ms'] / CONFIGURED.batch_ms:g} of what those "
        "take that were measured. "
        f"{cluster['front_ends']} front ends; a load of {', '.join(map(str, sorted(loads)))} % of "
        f"what full batches would take; the hop takes {hop or 'no time: it is not measured yet'}. "
        f"Hosts of {cores['replica']['instances']} cores are {cores['replicas']:,}, with "
        f"{cores['replica']['image_ms']:.1f} ms an image and core.\n"
    )


def findings(rows: Sequence[Row]) -> str:
    """What the simulations say, each sentence with their numbers."""
    return "".join(f"* {line}\n" for line in _findings(rows))


def _findings(rows: Sequence[Row]) -> Iterator[str]:
    middle = LOADS[1]
    at_middle = {
        row["routing"]: row["row"]["tp99_ms"]
        for row in group(rows, "rules")
        if abs(share(row) - middle) < 1e-6
    }
    shown = ", ".join(f"{ms:.0f} ms with {routing}" for routing, ms in at_middle.items())
    yield f"Rules: at a load of {100 * middle:g} % TP99 is {shown}."
    slow = group(rows, "unequal")
    part = slow[0]["cluster"]
    told = ", ".join(f"{row['row']['tp99_ms']:.0f} ms with {row['routing']}" for row in slow)
    yield (
        f"Unequal replicas: where {100 * part['slow_share']:g} % of them take "
        f"{part['slow_times']:g} times as long, TP99 at that load is {told}."
    )
    own = {
        row["cluster"]["rule"]: row["row"]["tp99_ms"]
        for row in group(rows, "front ends")
        if row["cluster"]["front_ends"] == FRONT_ENDS
    }
    for rule in ("two choices", "least"):
        found = {
            row["cluster"]["report_ms"]: row["row"]["tp99_ms"]
            for row in group(rows, "reports")
            if row["cluster"]["rule"] == rule
        }
        better = [every for every, ms in found.items() if ms < own[rule]]
        worst = max(found, key=lambda every: found[every])
        yield (
            f"Reports, {rule}: TP99 is {found[min(found)]:.0f} ms with one every {min(found):g} ms "
            f"and {found[worst]:.0f} ms at its worst, every {worst:g} ms; a front end's own calls "
            f"alone give {own[rule]:.0f} ms. "
            + (
                f"Reports help where they come every {max(better):g} ms or more often."
                if better == sorted(found)[: len(better)] and better
                else f"Reports help at {', '.join(f'{every:g}' for every in better)} ms."
                if better
                else "Reports help at no distance."
            )
        )
    by_count = {
        rule: {
            row["cluster"]["front_ends"]: row["row"]["tp99_ms"]
            for row in group(rows, "front ends")
            if row["cluster"]["rule"] == rule
        }
        for rule in ("round robin", "two choices", "least")
    }
    few, many = min(by_count["least"]), max(by_count["least"])
    told = ", ".join(
        f"{found[few]:.0f} to {found[many]:.0f} ms with {rule}" for rule, found in by_count.items()
    )
    yield f"Front ends that know their own calls: {few} of them, then {many}: TP99 {told}."
    for name, what in (("sizes", "instances of a replica"), ("GPUs", "GPUs of a replica")):
        sized: dict[str, dict[int, float]] = {}
        for row in group(rows, name):
            instances = row["cluster"]["replica"]["instances"]
            sized.setdefault(row["routing"], {})[instances] = row["row"]["tp99_ms"]
        told = ", ".join(
            f"{found[min(found)]:.1f} to {found[max(found)]:.1f} ms with {routing}"
            for routing, found in sized.items()
        )
        few, many = instances_of(rows, name)
        yield f"Sizes: from {few} to {many} {what}, TP99 goes from {told}."
    times = share(group(rows, "overload")[0])
    answered = [row["row"]["images_per_s"] for row in group(rows, "overload")]
    tails = [row["row"]["tp99_ms"] for row in group(rows, "overload")]
    yield (
        f"Overload: {times:.2g} times what can be served is answered at {min(answered):,.0f} to "
        f"{max(answered):,.0f} images/s, with TP99 of {min(tails):.0f} to {max(tails):.0f} ms; the "
        "rest is refused at once."
    )


def instances_of(rows: Sequence[Row], name: str) -> tuple[int, int]:
    """The fewest and the most instances of a replica in a group."""
    found = [row["cluster"]["replica"]["instances"] for row in group(rows, name)]
    return min(found), max(found)


def rules_table(rows: Sequence[Row]) -> Table:
    """TP50 and TP99 of every rule and view at each load."""
    found: dict[str, dict[float, Row]] = {}
    for row in group(rows, "rules"):
        found.setdefault(row["routing"], {})[round(share(row), 2)] = row["row"]
    header = ["rule, view"]
    for load in LOADS:
        header += [f"load {100 * load:g} %: TP50 ms", "TP99 ms"]
    return aligned_table(
        [*header, "mean batch at the last"],
        [
            (
                routing,
                *(_ms(by_load[load][key]) for load in LOADS for key in ("tp50_ms", "tp99_ms")),
                f"{by_load[LOADS[-1]]['mean_batch']:.2f}",
            )
            for routing, by_load in found.items()
        ],
    )


def reports_table(rows: Sequence[Row]) -> Table:
    """TP99 over the time between two reports."""
    found: dict[float, dict[str, Row]] = {}
    for row in group(rows, "reports"):
        cluster = row["cluster"]
        found.setdefault(cluster["report_ms"], {})[cluster["rule"]] = row["row"]
    return aligned_table(
        ["reports every", "two choices: TP50 ms", "TP99 ms", "least: TP50 ms", "TP99 ms"],
        [
            (
                f"{every:g} ms",
                *(
                    _ms(by_rule[rule][key])
                    for rule in ("two choices", "least")
                    for key in ("tp50_ms", "tp99_ms")
                ),
            )
            for every, by_rule in found.items()
        ],
    )


def front_ends_table(rows: Sequence[Row]) -> Table:
    """TP99 over the number of front ends that know their own calls only."""
    found: dict[int, dict[str, Row]] = {}
    for row in group(rows, "front ends"):
        cluster = row["cluster"]
        found.setdefault(cluster["front_ends"], {})[cluster["rule"]] = row["row"]
    rules = ("round robin", "two choices", "least")
    return aligned_table(
        ["front ends", *(f"{rule}: TP99 ms" for rule in rules)],
        [
            (count, *(_ms(by_rule[rule]["tp99_ms"]) for rule in rules))
            for count, by_rule in found.items()
        ],
    )


def sizes_table(rows: Sequence[Row], name: str) -> Table:
    """TP50 and TP99 over the instances of a replica."""
    found: dict[tuple[int, int], dict[str, Row]] = {}
    for row in group(rows, name):
        cluster = row["cluster"]
        key = (cluster["replica"]["instances"], cluster["replicas"])
        found.setdefault(key, {})[row["routing"]] = row["row"]
    routings = list(dict.fromkeys(row["routing"] for row in group(rows, name)))
    return aligned_table(
        ["instances of a replica", "replicas", *(f"{it}: TP50 / TP99 ms" for it in routings)],
        [
            (
                *key,
                *(
                    f"{_ms(by_rule[it]['tp50_ms'])} / {_ms(by_rule[it]['tp99_ms'])}"
                    for it in routings
                ),
            )
            for key, by_rule in found.items()
        ],
    )


def overload_table(rows: Sequence[Row]) -> Table:
    """What becomes of more than can be served."""
    return aligned_table(
        ["rule, view", "timeout", "answered/s", "refused", "expired", "TP50 ms", "TP99 ms"],
        [
            (
                row["routing"],
                f"{row['load']['timeout_ms']:g} ms" if row["load"]["timeout_ms"] else "none",
                f"{it['images_per_s']:,.0f}",
                percent(100 * it["refused_share"]),
                percent(100 * it["expired_share"]),
                _ms(it["tp50_ms"]),
                _ms(it["tp99_ms"]),
            )
            for row in group(rows, "overload")
            for it in [row["row"]]
        ],
    )


def short_table(rows: Sequence[Row], name: str) -> Table:
    """What every rule makes of one load."""
    return aligned_table(
        ["rule, view", "images/s", "TP50 ms", "TP99 ms", "refused"],
        [
            (
                row["routing"],
                f"{row['row']['images_per_s']:,.0f}",
                _ms(row["row"]["tp50_ms"]),
                _ms(row["row"]["tp99_ms"]),
                percent(100 * row["row"]["refused_share"], 1),
            )
            for row in group(rows, name)
        ],
    )


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
