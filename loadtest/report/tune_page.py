"""The report of `tune`: what to take and how sure that is, all settings, and the plot of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from interfaces.markdown import Table, aligned_table
from loadtest.records import raw_files
from loadtest.records.ladder import Ladder
from loadtest.records.metrics import NOT_AVAILABLE, number
from loadtest.records.run import Run
from loadtest.records.tuned import (
    Pair,
    Verdict,
    finals,
    searched,
    setting_of,
    trial_name,
    verdict,
    winner,
)
from loadtest.report import tables
from loadtest.report.charts import Chart, drawn
from loadtest.report.document import Page
from loadtest.report.style import CHART_WIDTH_IN, INK, MARK, MUTED, PALETTE, REPEATS, THEME


def _limit(run: Run) -> str:
    return f"TP99 <= {run.settings['slo_ms']:g} ms"


def _factor(pair: Pair) -> float | None:
    """Throughput within the limit as a multiple of the default's."""
    own, default = pair.setting.images_per_s, pair.default.images_per_s
    return own / default if own and default else None


def _sentences(run: Run) -> list[str]:
    """What to take, first; then why, and what became of the rest."""
    pairs, best, judged = searched(run), winner(run), verdict(run)
    limit = _limit(run)
    tried = "1 setting" if len(pairs) == 1 else f"{len(pairs)} settings"
    if not pairs:
        first = f"**Keep the default**: no setting could be measured within {limit}."
    elif best is None:
        first = f"**Keep the default**: none of {tried} was better within {limit}."
    else:
        first = _verdict(run, best, judged, tried)
    sentences = [first]
    if best is not None and len(pairs) > 1 and (factor := _factor(pairs[best])) is not None:
        sentences.append(
            f"In the search {trial_name(best)} had served {factor:.2f} times the default's; of "
            f"{len(pairs)} noisy numbers the best is too high, so that only the pairs at the end "
            "decide."
        )
    own = [_shortfall(name, ladders, run) for name, ladders in _ladders(run).items()]
    sentences += [text for text in own if text]
    if failed := [trial["trial"] for trial in run.results["trials"] if trial["error"]]:
        names = ", ".join(map(trial_name, failed))
        sentences.append(f"Not measured, for reasons that the table tells: {names}.")
    return sentences


def _verdict(run: Run, best: int, judged: Verdict, tried: str) -> str:
    limit, name = _limit(run), trial_name(best)
    setting = ", ".join(f"{key} {value:g}" for key, value in setting_of(run, best).items())
    pairs = "1 pair" if judged.pairs == 1 else f"{judged.pairs} pairs"
    if not judged.pairs:
        return (
            f"**Keep the default**: there was no time to measure {name}, the best of {tried}, "
            "again; take a longer `--budget_s`."
        )
    if judged.ratio is None:
        if judged.is_gain:
            return (
                f"**Take best.toml** ({name}: {setting}): it held {limit} in all of {pairs} "
                "beside the default, which held it in none."
            )
        return (
            f"**Keep the default**: measured again in {pairs} beside it, {name}, the best of "
            f"{tried}, held {limit} in {judged.holds} and the default in {judged.default_holds}."
        )
    ratio = judged.ratio
    bounds = f"95 % interval {tables.factor_interval(ratio.interval)} of {pairs} in turns"
    factor = f"{ratio.spread.median:.2f} times the images per second of the default"
    if judged.is_gain:
        return (
            f"**Take best.toml** ({name}: {setting}): it serves {factor} within {limit} ({bounds})."
        )
    if judged.pairs == 1:
        why = "one pair shows no spread, so that this proves nothing"
    elif ratio.is_distinct:
        why = "which is less"
    else:
        why = "which is inside the noise"
    return (
        f"**Keep the default**: measured again, {name}, the best of {tried}, serves {factor} "
        f"within {limit} ({bounds}), {why}."
    )


def _ladders(run: Run) -> dict[str, list[Ladder]]:
    """Those of the default and of the winner, of the whole run."""
    pairs = [*searched(run).values()]
    again = finals(run)
    found = {"the default": [pair.default for pair in (*pairs, *again)]}
    if again:
        found["the winner"] = [pair.setting for pair in again]
    return found


def _shortfall(name: str, ladders: Sequence[Ladder], run: Run) -> str:
    """That the limit was not held, and by how much; "" where it was."""
    missed = [ladder for ladder in ladders if not ladder.held]
    if not missed:
        return ""
    least = min(ladder.rungs[0].tp99_ms for ladder in missed)
    told = f"{least:.2f} ms" if math.isfinite(least) else "no right answers"
    fewest = run.settings["clients"][0]
    clients = "1 client" if fewest == 1 else f"{fewest} clients"
    return (
        f"With {clients} {name} missed the limit in {len(missed)} of {len(ladders)} turns, with a "
        f"TP99 of {told} at best."
    )


def _table(run: Run) -> Table:
    """A row a setting: the default first, then as they were tried."""
    names = list(run.results["default"])
    pairs, best = searched(run), winner(run)

    def cells(ladder: Ladder | None) -> tuple[str, str, str]:
        if ladder is None:
            return (NOT_AVAILABLE,) * 3
        rung = ladder.held[-1] if ladder.held else ladder.rungs[0]
        return number(ladder.images_per_s), str(rung.clients), number(rung.tp99_ms, 2)

    def values(setting: Mapping[str, Any]) -> list[str]:
        return [f"{setting[name]:g}" for name in names]

    middle = sorted((pair.default for pair in pairs.values()), key=lambda ladder: ladder.score)
    default = middle[len(middle) // 2] if middle else None
    rows: list[list[str]] = [
        ["default", *values(run.results["default"]), *cells(default), "1.00", "-"]
    ]
    for trial in run.results["trials"]:
        pair = pairs.get(trial["trial"])
        factor = None if pair is None else _factor(pair)
        note = trial["error"] or ("-" if factor is not None else "beyond the limit")
        if trial["trial"] == best:
            note = "measured again" if factor is not None else f"{note}, measured again"
        rows.append(
            [
                trial_name(trial["trial"]),
                *values(trial),
                *cells(None if pair is None else pair.setting),
                number(factor, 2),
                note,
            ]
        )
    units = {"batching_timeout": "batching_timeout ms", "max": "max rows"}
    heads = [units.get(name, name) for name in names]
    return aligned_table(
        ["Setting", *heads, "images/s at the limit", "clients", "TP99 ms", "x default", "note"],
        rows,
    )


def _final_table(run: Run) -> Table | None:
    if not (again := finals(run)):
        return None
    rows = [
        [
            str(index),
            number(pair.setting.images_per_s),
            number(pair.default.images_per_s),
            number(_factor(pair), 3),
        ]
        for index, pair in enumerate(again, 1)
    ]
    return aligned_table(["Pair", "winner: images/s", "default: images/s", "x default"], rows)


def _search_figure(run: Run) -> Figure:
    figure = Figure(figsize=(CHART_WIDTH_IN, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    _draw_search(figure.subplots(), run)
    figure.legend(loc="outside lower center", ncols=1)
    return figure


def _values_figure(run: Run) -> Figure:
    """A panel a setting, two in a row."""
    names = [name for name in run.results["default"] if _varies(run, name)]
    rows = max(1, -(-len(names) // 2))
    figure = Figure(figsize=(CHART_WIDTH_IN, 0.6 + 1.9 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, 2, squeeze=False).flatten()
    for panel, name in zip(panels, names, strict=False):
        _draw_values(panel, run, name)
    for panel in panels[len(names) :]:
        panel.set_axis_off()
    figure.supylabel("x the default (square)", fontsize="medium")
    return figure


def _varies(run: Run, name: str) -> bool:
    tried = {trial[name] for trial in run.results["trials"]}
    return len({*tried, run.results["default"][name]}) > 1


def _draw_search(axes: Axes, run: Run) -> None:
    """The settings in the order in which they were tried, and the winner measured again."""
    pairs, best = searched(run), winner(run)
    known = {n: factor for n, pair in pairs.items() if (factor := _factor(pair)) is not None}
    axes.axhline(1.0, color=MUTED, linewidth=0.8, linestyle=":")
    style: dict[str, Any] = {"color": PALETTE[2], "gid": MARK}
    axes.plot([*known], [*known.values()], "o", label="tried beside the default", **style)
    if best in known:
        ring: dict[str, Any] = {"markersize": 13, "color": INK, "fillstyle": "none"}
        axes.plot(best, known[best], "o", label="best of the search", **ring)
    judged = verdict(run)
    again = [factor for pair in finals(run) if (factor := _factor(pair)) is not None]
    if judged.ratio is not None:
        place, ratio = max(pairs, default=0) + 1.5, judged.ratio
        low, high = ratio.interval.low, ratio.interval.high
        if low is not None and high is not None:
            axes.plot([place, place], [low, high], color=PALETTE[0], linewidth=2)
        label = "the same, measured again (95 % interval)"
        axes.plot(place, ratio.spread.median, "D", color=PALETTE[0], label=label, gid=MARK)
        axes.plot([place + 0.2] * len(again), again, "o", **REPEATS)
    _draw_beyond(axes, [number for number in pairs if number not in known], "beyond the limit")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlim(0.5, max(pairs, default=1) + (2.2 if judged.ratio is not None else 0.5))
    _widen(axes, [*known.values(), *again])
    axes.set_xlabel("setting, in the order in which they were tried")
    axes.set_ylabel("x the default")


def _draw_beyond(axes: Axes, places: Sequence[float], label: str) -> None:
    """What has no throughput within the limit: at the lower edge."""
    if places:
        edge = axes.get_xaxis_transform()
        heights = [0.04] * len(places)
        style: dict[str, Any] = {"color": PALETTE[0], "transform": edge, "gid": MARK}
        axes.plot(places, heights, "x", label=label, **style)


def _widen(axes: Axes, factors: Sequence[float]) -> None:
    """A few percent are not to look like much."""
    low, high = min([0.9, *factors]), max([1.1, *factors])
    axes.set_ylim(low - 0.08 * (high - low), high + 0.05 * (high - low))


def _draw_values(axes: Axes, run: Run, name: str) -> None:
    """What each value of one setting came to, whatever the others were."""
    pairs = searched(run)
    tried = [
        (trial[name], _factor(pairs[trial["trial"]]))
        for trial in run.results["trials"]
        if trial["trial"] in pairs
    ]
    # Values are few and far apart: evenly spaced they can be read.
    default = run.results["default"][name]
    values = sorted({value for value, _ in tried} | {default})
    known = [(values.index(value), factor) for value, factor in tried if factor is not None]
    axes.axhline(1.0, color=MUTED, linewidth=0.8, linestyle=":")
    places, factors = [place for place, _ in known], [factor for _, factor in known]
    axes.plot(places, factors, "o", color=PALETTE[2], alpha=0.7, gid=MARK)
    axes.plot(values.index(default), 1.0, "s", color=INK, markersize=5)
    _draw_beyond(axes, [values.index(value) for value, factor in tried if factor is None], "_")
    axes.set_xticks(range(len(values)), [f"{value:g}" for value in values])
    axes.set_xlim(-0.5, len(values) - 0.5)
    _widen(axes, factors)
    axes.set_xlabel(f"{name}{' (ms)' if name == 'batching_timeout' else ''}")


_METHOD = (
    "Each setting has a fresh server and climbs the same ladder of clients as the default's "
    "server, which stays: window by window in turn, until the TP99 is beyond the limit. Images per "
    "second at the limit are interpolated between the last rung that holds it and the first that "
    "does not.",
    "`x default` is against the default's windows of the same turn. The search takes the best of "
    "many noisy numbers; the pairs at its end are measured afterwards, and the interval is that of "
    "their mean log ratio.",
    "`max rows` is the largest batch of the engine's node, `instance_num` its instances, `threads` "
    "the instances of each node that decodes and prepares, `workers` the server's processes.",
)


def _values(run: Run, folder: Path) -> Mapping[str, Any]:
    first, *others = _sentences(run)
    if run.complete:
        others.append("`best.toml` is the file to take; its second line is how to serve it.")
    title, settings, told = run.workloads[0].title, run.settings, first.replace("**", "")
    beside = f"each setting beside the default, {_limit(run)}"
    made = (
        Chart("settings", title, beside, told, lambda: _search_figure(run)),
        Chart("values", title, "the values of each setting", told, lambda: _values_figure(run)),
    )
    final = _final_table(run)
    return {
        "verdict": [first],
        "sentences": others,
        "tone": "good" if winner(run) is not None and verdict(run).is_gain else "",
        "load": f"{', '.join(map(str, settings['clients']))} closed-loop clients, as far as the "
        f"limit needs them, windows of {settings['duration_s']:g} s",
        "charts": [drawn(folder, chart) for chart in made],
        "tables": [
            ("All settings", _table(run)),
            *([("The winner measured again", final)] if final else []),
        ],
        "method": _METHOD,
        "files": raw_files,
        "theme": THEME,
    }


def _terminal(run: Run) -> str:
    final = _final_table(run)
    return "\n".join([_table(run), *([final] if final else []), *_sentences(run)])


PAGES = {
    "tune": Page("Tuning of the pipeline", "search.md", _values, _terminal, html="search.html")
}
