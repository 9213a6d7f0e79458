"""The reports of fuzz, chaos and soak."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from interfaces.markdown import aligned_table
from loadtest.records.raw_files import read_table
from loadtest.records.run import Run
from loadtest.report.document import Page
from loadtest.report.tables import check_table
from tests.robustness import soak_plot

_CURVE_POINTS = 20
_SHOWN_TRACEBACKS = 5
_SHORT = {
    "offered_per_s": "offered a second",
    "goodput_per_s": "right a second",
    "tp99_ms": "TP99 ms",
    "own_cores": "cores of the load generator",
    "lag_ms": "lag of the load generator (TP99, ms)",
}

Sections = list[tuple[str, str]]


def _fuzz(run: Run, folder: Path) -> Sections:
    found = run.results
    counts, length_s = found["counts"], found["length_s"]
    usage = read_table(folder, "usage")
    step = max(1, len(usage) // _CURVE_POINTS)
    curve = [(f"{float(s['at_s']):.0f}", _mb(float(s["rss_bytes"]))) for s in usage[::step]]
    requests = counts["requests"]
    sections = [
        (
            "Outcomes",
            f"{requests} mutated requests in {length_s:.1f} s, {requests / length_s:.0f} a "
            "second.\n\n" + aligned_table(("outcome", "requests"), _by_count(counts)),
        ),
        ("Resident memory of all server processes", aligned_table(("at s", "MiB"), curve)),
    ]
    # Folders of older versions have no log of the server.
    if "log_lines" in found:
        lines = aligned_table(("level", "lines"), sorted(found["log_lines"].items()))
        sections.append(
            ("Log lines of the server", f"{lines}\nThe last ones:\n\n{_code(found['last_lines'])}")
        )
    return [*sections, *_failures(found["failures"], found)]


def _failures(lines: Sequence[str], found: Mapping[str, Any]) -> Sections:
    """What went wrong, with the first tracebacks of the server; none where nothing did."""
    tracebacks = [*map(_code, found.get("tracebacks", [])[:_SHOWN_TRACEBACKS])]
    texts = [*(f"- {line}" for line in lines), *tracebacks]
    return [("Failures", "\n\n".join(texts))] if texts else []


def _chaos(run: Run, folder: Path) -> Sections:
    sections = [
        (
            "Outcomes of the checking clients, by image",
            _outcomes(run)
            + "\n"
            + "\n".join(f"- {phase['name']}: {phase['what']}" for phase in run.results["phases"]),
        )
    ]
    windows = read_table(folder, "overload")
    if windows:
        rows = [[_rounded(cell) for cell in window.values()] for window in windows]
        header = [_SHORT.get(name, name) for name in windows[0]]
        sections.append(("Overload, window by window", aligned_table(header, rows)))
    return sections


def _regression(run: Run, folder: Path) -> Sections:
    pairs = read_table(folder, "pairs")
    rows = [[_rounded(cell) for cell in pair.values()] for pair in pairs]
    text = (
        f"This checkout beside {run.settings['against']}: {run.settings['clients']} closed-loop "
        f"clients, windows of {run.settings['duration_s']:g} s, one side after the other.\n\n"
    )
    header = ("", "pair", "this a second", "other a second")
    return [("Pairs", text + aligned_table(header, rows))]


def _observing(run: Run, folder: Path) -> Sections:
    pairs = read_table(folder, "pairs")
    rows = [[_rounded(cell) for cell in pair.values()] for pair in pairs]
    text = (
        "CPU time of a request in microseconds: of counting one of one image and four stages, "
        "in a loop, and of the whole server with the null handler, this checkout beside "
        f"{run.settings['against']}, {run.settings['requests']} requests of one client each.\n\n"
    )
    return [("Pairs", text + aligned_table(("pair", "counting", "this server", "the other"), rows))]


def _outcomes(run: Run) -> str:
    """Images of each phase by outcome."""
    phases = run.results["phases"]
    names = [*dict.fromkeys(name for phase in phases for name in phase["outcomes"])]
    return aligned_table(
        ("phase", "seconds", *names),
        [
            (p["name"], f"{p['length_s']:.1f}", *(p["outcomes"].get(name, 0) for name in names))
            for p in phases
        ],
    )


def _soak(run: Run, folder: Path) -> Sections:
    found = run.results
    picture = soak_plot.draw(
        folder,
        [
            (float(window["start_s"]), float(window["images_per_s"]))
            for window in read_table(folder, "throughput")
        ],
        [
            {name: float(value) for name, value in sample.items()}
            for sample in read_table(folder, "usage")
        ],
        soak_plot.WARM_UP_SHARE * run.settings["duration_s"],
        found["memory"]["per_s"],
    )
    outcomes = aligned_table(("outcome", "images"), _by_count(found["outcomes"]))
    return [
        ("Throughput and memory", f"![throughput and memory over time]({picture})\n"),
        ("Outcomes, by image", outcomes),
        *_failures(found.get("wrongs", []), found),
    ]


def _by_count(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda pair: -pair[1])


def _mb(value: float) -> str:
    return f"{value / 2**20:.1f}"


def _code(lines: Sequence[str]) -> str:
    return "```\n" + "\n".join(lines) + "\n```"


def _rounded(cell: str) -> str:
    try:
        return f"{float(cell):.1f}" if float(cell) >= 10 else f"{float(cell):.2f}"
    except ValueError:
        return cell


def _page(title: str, sections: Callable[[Run, Path], Sections]) -> Page:
    def values(run: Run, folder: Path) -> dict[str, Any]:
        return {"checks": check_table(run.checks), "sections": sections(run, folder)}

    def terminal(run: Run) -> str:
        outcomes = f"{_outcomes(run)}\n" if "phases" in run.results else ""
        return f"{outcomes}{check_table(run.checks)}"

    return Page(title, "robustness.md", values, terminal, Path(__file__).parent)


PAGES = {
    "fuzz": _page("Fuzz", _fuzz),
    "chaos": _page("Chaos", _chaos),
    "soak": _page("Soak", _soak),
    "regression": _page("Regression", _regression),
    "observing": _page("What observing a request costs", _observing),
}
