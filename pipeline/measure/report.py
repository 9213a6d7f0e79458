"""report.md and its plot, made from run.json alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.measure import plots, run_file, summary
from pipeline.measure.sides import ANCHOR, OURS, MeasureError
from pipeline.measure.summary import Spread
from pipeline.measure.verdict import verdicts

REPORT_FILE = "report.md"
_NOT_AVAILABLE = "n/a"
_ENOUGH_REPEATS = 5
_TITLES = {
    "batching": "When batches leave",
    "overhead": "What the runtime costs an item",
    "integrity": "No item lost, duplicated or swapped",
}


def build(folder: Path) -> str:
    """Read a measured folder and write its report.md and its plot.

    Returns:
        The tables, for a terminal.

    Raises:
        MeasureError: run.json is missing or damaged, or the folder is not writable.
    """
    run = run_file.read(folder)
    try:
        tables = _TABLES[run["kind"]](run)
        text = "\n".join(
            [*_head(run), _verdict_table(run), tables, *_foot(run, plots.draw(folder, run))]
        )
        (folder / REPORT_FILE).write_text(text, encoding="utf-8")
    except (KeyError, TypeError, ValueError) as error:
        raise MeasureError(
            f"run.json in {str(folder)!r} is damaged: {type(error).__name__}: {error}"
        ) from error
    except OSError as error:
        raise MeasureError(f"cannot write {str(folder)!r}: {error.strerror}") from error
    return f"{_verdict_table(run)}\n{tables}"


def _head(run: Mapping[str, Any]) -> list[str]:
    machine, source = run["machine"], run["source"]
    commit = source["commit"] or "not in a git checkout"
    dirty = " with uncommitted changes" if source["dirty"] else ""
    versions = "; ".join(
        f"{side}: {', '.join(f'{name} {found}' for name, found in packages.items())}"
        for side, packages in run["versions"].items()
    )
    lines = [
        f"# {_TITLES[run['kind']]}",
        "",
        f"- Measured: {run['started']}, commit {commit}{dirty}",
        f"- Machine: {machine['cpu_model']}, {machine['cpu_cores_usable']} cores usable, "
        f"{machine['memory_bytes'] / 2**30:.1f} GiB memory, {machine['kernel']}",
        f"- Versions: {versions}",
    ]
    if "windows" in run:
        lines += _sides(run)
    return [*lines, ""]


def _sides(run: Mapping[str, Any]) -> list[str]:
    repeats = int(run["settings"]["repeats"])
    lines = [
        f"- Each side is a process of its own; they take turns, window by window, in {repeats} "
        "repeats, every other one in reverse order"
    ]
    if repeats < _ENOUGH_REPEATS:
        lines.append(
            f"- **Only {repeats} repeat(s)**: {_ENOUGH_REPEATS} are the least for numbers to rely "
            "on"
        )
    if run["anchor_missing"] is not None:
        lines.append(f"- **Without torchpipe**: {run['anchor_missing']}")
    else:
        shares = ", ".join(
            f"{side} {100 * summary.idle_share(run, side):.1f} %" for side in (OURS, ANCHOR)
        )
        lines.append(f"- CPU of a side's process while the other one was measured: {shares}")
    return lines


def _verdict_table(run: Mapping[str, Any]) -> str:
    answers = {True: "yes", False: "**no**", None: _NOT_AVAILABLE}
    rows = [(line.asked, line.found, answers[line.met]) for line in verdicts(run)]
    return _markdown(("Asked of thriftpipe", "found", "met"), rows)


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with aligned columns; all but the first are right-aligned."""
    widths = [max(3, *(len(row[i]) for row in (header, *rows))) for i in range(len(header))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = []
    for row in (header, rule, *rows):
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _spread(values: Sequence[float], digits: int) -> str:
    spread = Spread.of(values)
    return f"{spread.median:.{digits}f} [{spread.low:.{digits}f}, {spread.high:.{digits}f}]"


def _batching_tables(run: Mapping[str, Any]) -> str:
    clients, late, waits = [], [], []
    for part in run["parts"]:
        name, request = part["name"], part["request"]
        for side in summary.sides(run):
            found = summary.measured(run, name, side)
            if found is None:
                continue
            if request["window"] == "waiting":
                waits.append(
                    (
                        side,
                        str(request["waiting_items"]),
                        "too few" if request["hold_s"] is None else "the instance works",
                        _NOT_AVAILABLE if found.refused else _spread(found.cpu_s, 4),
                        found.refused or ("ended early" if found.ended_early else "-"),
                    )
                )
                continue
            latencies = (
                f"{found.percentile_ms(0.50):.2f}",
                _spread(found.percentiles_ms(0.50), 2),
                f"{found.percentile_ms(0.99):.2f}",
                _spread(found.percentiles_ms(0.99), 2),
            )
            count = str(len(found.latencies_ms))
            if request["window"] == "closed_loop":
                qps = _spread(found.items_per_s, 1)
                clients.append(
                    (
                        side,
                        str(request["clients"]),
                        *latencies,
                        f"{found.mean_batch:.2f}",
                        qps,
                        count,
                    )
                )
            else:
                before = {tuple(sizes) for w in found.windows for sizes in w["batches_before"]}
                sizes = " or ".join("+".join(map(str, entry)) for entry in sorted(before))
                late.append((side, str(request["busy"]), sizes, *latencies, count))
    latency_header = ("TP50 ms", "repeats", "TP99 ms", "repeats")
    return "\n".join(
        [
            f"## Closed-loop clients, timeout {_timeout_ms(run, 'clients-1')} ms\n",
            _markdown(("Side", "clients", *latency_header, "mean batch", "QPS", "n"), clients),
            f"## A lone late request, timeout {_timeout_ms(run, 'late-1-busy')} ms\n",
            "With none at work, all before it is done. Else it comes 7 ms after the last batch "
            "before it began, which takes 10 ms: with both at work it waits 3 ms for the first of "
            "them, whoever schedules it.\n",
            _markdown(("Side", "instances at work", "batches before", *latency_header, "n"), late),
            f"## CPU time while items wait, in {run['settings']['wait_s']:g} s\n",
            _markdown(("Side", "items", "they wait because", "CPU-s", "marks"), waits),
        ]
    )


def _timeout_ms(run: Mapping[str, Any], part: str) -> str:
    request = next(entry["request"] for entry in run["parts"] if entry["name"] == part)
    return str(next(iter(request["document"].values()))["batching_timeout"])


def _overhead_tables(run: Mapping[str, Any]) -> str:
    rows = []
    for part in run["parts"]:
        for side in summary.sides(run):
            found = summary.measured(run, part["name"], side)
            if found is not None:
                items = sum(window["items"] for window in found.windows)
                rows.append(
                    (
                        side,
                        part["name"],
                        _spread(found.cpu_us_an_item, 1),
                        _spread(found.wall_us_an_item, 1),
                        _spread(found.items_per_s, 0),
                        str(items),
                    )
                )
    request = run["parts"][0]["request"]
    return "\n".join(
        [
            f"## {request['clients']} clients, {len(request['document'])} nodes in a row that do "
            "nothing\n",
            "CPU time is that of the whole process, clients and measuring included.\n",
            _markdown(("Side", "nodes", "CPU us an item", "wall us an item", "items/s", "n"), rows),
        ]
    )


def _integrity_tables(run: Mapping[str, Any]) -> str:
    settings, samples = run["settings"], run["samples"]
    growth = summary.bytes_an_item(samples)
    memory = [sample["rss_bytes"] / 2**20 for sample in samples]
    rows = [
        ("items", str(run["items"])),
        ("of these failed on purpose", str(run["failed_on_purpose"])),
        ("clients", str(settings["clients"])),
        ("instances a node", str(settings["instances"])),
        ("duration", f"{run['wall_s']:.1f} s"),
        ("items a second", f"{run['items'] / run['wall_s']:.0f}"),
        (
            "memory: first, largest, last",
            " / ".join(f"{value:.1f} MiB" for value in (memory[0], max(memory), memory[-1])),
        ),
        ("growth", _NOT_AVAILABLE if growth is None else f"{growth:.2f} bytes an item"),
        *((f"wrong: {kind}", str(count)) for kind, count in run["findings"].items()),
    ]
    graph = "; ".join(
        f"{name} -> {node['next'].replace(',', ', ')}" if "next" in node else f"{name} ends"
        for name, node in run["document"].items()
    )
    examples = [f"- {example}" for example in run["examples"]]
    return "\n".join([f"Graph: {graph}.\n", _markdown(("What", "value"), rows), *examples])


def _foot(run: Mapping[str, Any], picture: str) -> list[str]:
    return [
        f"![{_TITLES[run['kind']]}]({picture})",
        "",
        "Brackets hold the least and the greatest repeat; without them a percentile is that of all "
        "repeats together.",
        "",
        "Reproduce:",
        "",
        f"    {run['command']}",
        "",
        "This page and its plot follow from run.json alone:",
        "",
        "    python -m pipeline.measure report FOLDER",
        "",
    ]


_TABLES = {
    "batching": _batching_tables,
    "overhead": _overhead_tables,
    "integrity": _integrity_tables,
}
