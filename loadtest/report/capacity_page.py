"""The report of `capacity`: the highest rate within the limit, how sure it is, and all windows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from interfaces.markdown import Table
from loadtest.records import raw_files
from loadtest.records.metrics import NOT_AVAILABLE, number, percent, window_usage
from loadtest.records.run import Run, Window
from loadtest.records.service_level import (
    HIGHEST_SHARE,
    RESOLUTION,
    closed_rate_per_s,
    holds,
    search_of,
    tp99_ms,
)
from loadtest.report import tables
from loadtest.report.charts import Chart, drawn
from loadtest.report.document import Page
from loadtest.report.marks import LAG_SHARE
from loadtest.report.style import (
    CHART_WIDTH_IN,
    INK,
    MARK,
    PALETTE,
    THEME,
    draw_limit,
    scale_logarithmically,
)
from measurement.statistics import percentile

# Most of an interval wider than this is what was known before any window: its middle is no finding.
_MIDDLE_SHARE = 0.25


def _slo_ms(run: Run) -> float:
    return float(run.settings["slo_ms"])


def _opened(run: Run) -> list[Window]:
    """The windows of open loops, by rate."""
    windows = [w for w in run.workloads[0].windows if w.offered_per_s is not None]
    return sorted(windows, key=_rate)


def _rate(window: Window) -> float:
    """Planned requests a second."""
    return window.offered_per_s or 0.0


def _lag_ms(window: Window) -> float:
    """TP99 of how late the load generator itself was, sending and reading."""
    return percentile(sorted(record.lag_ms for record in window.records), 0.99)


def _is_generators_fault(window: Window, slo_ms: float) -> bool:
    """Whether a window would have held if the load generator had sent all in time."""
    own_ms = (
        math.inf if r.failed_images and r.lag_ms < r.latency_ms else r.latency_ms - r.lag_ms
        for r in window.records
    )
    return percentile(sorted(own_ms), 0.99) <= slo_ms


def _lower(rate: float | None) -> str:
    """A rate in three digits, rounded down."""
    if not rate:
        return NOT_AVAILABLE
    step = 10.0 ** (math.floor(math.log10(rate)) - 2)
    return f"{math.floor(rate / step + 1e-9) * step:.{max(0, 2 - math.floor(math.log10(rate)))}f}"


def _sentences(run: Run) -> list[str]:
    """The verdict; then what was held at its safe end, and what a reader has to know."""
    windows, slo_ms = run.workloads[0].windows, _slo_ms(run)
    name = run.workloads[0].variants[0].name
    found = search_of(windows, slo_ms)
    bounds, opened = found.interval(), _opened(run)
    limit = f"TP99 <= {slo_ms:g} ms"
    arrivals = run.settings["arrivals"]
    count = "1 window" if len(opened) == 1 else f"{len(opened)} windows"
    within = f"{count}, {arrivals} arrivals"
    if not opened:
        return [f"**The time was over before any rate was tried with {limit}.**"]
    if not any(holds(window, slo_ms) for window in opened):
        least = min(opened, key=tp99_ms)
        tp99 = tp99_ms(least)
        nearest = "not all answers right" if math.isinf(tp99) else f"a TP99 of {tp99:.2f} ms"
        return [
            f"**`{name}` holds {limit} at no rate that was tried** ({within}): "
            f"{least.offered_per_s:g} requests per second had {nearest}.",
            *_cautions(run, opened),
        ]
    if all(holds(window, slo_ms) for window in opened):
        most = max(map(_rate, opened))
        why = (
            f"no more than {HIGHEST_SHARE} times what clients that wait get is tried"
            if found.is_at_an_end()
            else "a longer `--budget_s` looks further"
        )
        return [
            f"**`{name}` holds {limit} at all rates that were tried, up to {most:.4g} requests per "
            f"second** ({within}): what it serves at most was not found; {why}.",
            *_cautions(run, opened),
        ]
    if bounds.low is None or bounds.high is None:
        return [
            f"**No highest rate of `{name}` with {limit} was found** ({within}): its 95 % interval "
            f"goes beyond the rates that may be tried, from {_lower(bounds.low)} to "
            f"{_lower(bounds.high)} requests per second.",
            *_cautions(run, opened),
        ]
    safe = [window for window in opened if _rate(window) <= bounds.low]
    held = sum(holds(window, slo_ms) for window in safe)
    end = f"Up to {_lower(bounds.low)} requests per second, the safe end, "
    if not safe:
        end += "no window was measured"
    else:
        end += f"{held} of {len(safe)} windows held"
    median = _lower(found.median)
    if found.is_within(_MIDDLE_SHARE):
        sentences = [
            f"**`{name}` serves up to {median} requests per second with {limit}** "
            f"(95 % interval {_lower(bounds.low)} to {_lower(bounds.high)}; {within}).",
            f"{end}; at {median} every other one is to be expected.",
        ]
    else:
        sentences = [
            f"**`{name}` serves up to somewhere between {_lower(bounds.low)} and "
            f"{_lower(bounds.high)} requests per second with {limit}** (95 % interval; {within}).",
            f"{end}.",
        ]
    if not found.is_within(RESOLUTION):
        sentences.append(
            f"The search ended before the interval was as narrow as {100 * RESOLUTION:g} %: a "
            "longer `--budget_s` narrows it."
        )
    return [*sentences, *_cautions(run, opened)]


def _cautions(run: Run, opened: Sequence[Window]) -> list[str]:
    """What else decides the numbers."""
    slo_ms = _slo_ms(run)
    within = [window for window in opened if holds(window, slo_ms)] or opened[:1]
    lag_ms = max(map(_lag_ms, within))
    told = (
        f"The load generator itself was late by {lag_ms:.2f} ms (TP99 of the worst window that "
        "held); latencies count from the planned times and contain it"
        if any(holds(window, slo_ms) for window in opened)
        else f"The load generator itself was late by {lag_ms:.2f} ms (TP99 at the lowest rate)"
    )
    if lag_ms > LAG_SHARE * slo_ms:
        told += ". That is much of the limit: take more `--client_processes`, or another machine"
    missed = [window for window in opened if not holds(window, slo_ms)]
    own = sum(_is_generators_fault(window, slo_ms) for window in missed)
    faults = [
        f"In {own} of {len(missed)} windows that did not hold, nothing but the load generator's "
        "own lag was beyond the limit, so that the server may serve more: take more "
        "`--client_processes`, or another machine."
    ]
    return [
        f"{told}.",
        *(faults if own else []),
        f"{run.settings['request_client']} clients that wait were served "
        f"{closed_rate_per_s(run.workloads[0].windows):.1f} requests per second.",
    ]


def _table(run: Run) -> Table:
    slo_ms = _slo_ms(run)

    def usage(window: Window, name: str) -> float | None:
        samples = window.samples
        found: float | None = window_usage(
            [s.at_s for s in samples], [s.values for s in samples], window.length_s
        )[name]
        return found

    def tp99(window: Window) -> str:
        return NOT_AVAILABLE if math.isinf(found := tp99_ms(window)) else number(found, 2)

    columns: tables.Columns[Window] = (
        ("requests/s", lambda window: f"{window.offered_per_s:g}"),
        ("window", lambda window: str(window.repeat)),
        ("seconds", lambda window: number(window.length_s)),
        ("requests", lambda window: str(len(window.records))),
        ("failed", lambda window: str(sum(bool(r.failed_images) for r in window.records))),
        ("TP99 ms", tp99),
        ("held", lambda window: "yes" if holds(window, slo_ms) else "no"),
        ("generator's lag: TP99 ms", lambda window: number(_lag_ms(window), 2)),
        ("client CPU", lambda window: percent(usage(window, "clients_cpu_percent"))),
        ("server CPU", lambda window: percent(usage(window, "server_cpu_percent"))),
    )
    return tables.table(columns, _opened(run))


def _draw(run: Run) -> Figure:
    slo_ms, opened = _slo_ms(run), _opened(run)
    figure = Figure(figsize=(CHART_WIDTH_IN, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for held, colour, marker, label in (
        (True, PALETTE[2], "o", "held"),
        (False, PALETTE[0], "X", "did not hold"),
    ):
        shown = [w for w in opened if holds(w, slo_ms) == held and math.isfinite(tp99_ms(w))]
        rates, found_ms = [_rate(window) for window in shown], [tp99_ms(window) for window in shown]
        axes.plot(rates, found_ms, marker, color=colour, label=label, gid=MARK)
    if lost := [_rate(window) for window in opened if math.isinf(tp99_ms(window))]:
        # Their TP99 is infinite: at the upper edge.
        edge, label = axes.get_xaxis_transform(), "answers missing"
        axes.plot(lost, [0.97] * len(lost), "^", color=INK, transform=edge, label=label, gid=MARK)
    bounds = search_of(run.workloads[0].windows, slo_ms).interval()
    if bounds.low is not None and bounds.high is not None:
        axes.axvspan(bounds.low, bounds.high, color=PALETTE[3], alpha=0.3, label="95 % interval")
    draw_limit(axes, slo_ms, f"{slo_ms:g} ms")
    scale_logarithmically(axes)
    axes.set_xlim(left=0)
    axes.set_xlabel("planned requests per second")
    axes.set_ylabel("TP99 in ms (logarithmic)")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


_METHOD = (
    "Requests are sent at planned times, whatever becomes of those before them. Latencies count "
    "from those times, and every request that was to be sent in a window counts; one without a "
    "right answer counts as infinitely long.",
    "A window holds the limit, or it does not. Each one updates a distribution over the rate at "
    "which half of the windows hold, and the next one is measured where it tells most. The "
    "interval is that distribution's; it allows for windows that something else has disturbed.",
)


def _values(run: Run, folder: Path) -> Mapping[str, Any]:
    first, *others = _sentences(run)
    chart = Chart(
        "tp99-over-rate",
        run.workloads[0].title,
        "TP99 over the planned rate",
        first.replace("**", "").replace("`", ""),
        lambda: _draw(run),
    )
    settings = run.settings
    return {
        "verdict": [first],
        "sentences": others,
        "tone": "",
        "load": f"open loops ({settings['arrivals']} arrivals), windows of "
        f"{settings['duration_s']:g} s or what 100 requests need, 10 s at most",
        "charts": [drawn(folder, chart)],
        "tables": [("All windows", _table(run))],
        "method": _METHOD,
        "files": raw_files,
        "theme": THEME,
    }


def terminal(run: Run) -> str:
    """The table, and what it says."""
    return "\n".join([_table(run), *_sentences(run)])


PAGES = {
    "capacity": Page(
        "The highest rate within a latency limit",
        "search.md",
        _values,
        terminal,
        html="search.html",
    )
}
