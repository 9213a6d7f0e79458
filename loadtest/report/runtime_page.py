"""The reports of the runtime: batching, overhead and integrity."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interfaces.markdown import aligned_table
from interfaces.sizes import size_text
from loadtest.records.metrics import NOT_AVAILABLE
from loadtest.records.run import Run
from loadtest.report import runtime_plots
from loadtest.report.document import Page
from loadtest.report.runtime_summary import (
    SideWindows,
    bytes_an_item,
    idle_share,
    runtime_checks,
    sides,
    windows_of,
)
from loadtest.report.tables import Columns, check_table, over_repeats, table
from measurement.statistics import Spread


@dataclass(frozen=True)
class _Entry:
    """A part on one side: one row of the tables."""

    side: str
    name: str
    request: Mapping[str, Any]
    found: SideWindows

    @property
    def batches_before(self) -> str:
        """The sizes of the batches that had begun when the late request came."""
        before = {tuple(sizes) for w in self.found.windows for sizes in w["batches_before"]}
        return " or ".join("+".join(map(str, sizes)) for sizes in sorted(before))


def _entries(run: Run, window: str) -> list[_Entry]:
    return [
        _Entry(side, part["name"], part["request"], found)
        for part in run.results["parts"]
        if part["request"].get("window", window) == window
        for side in sides(run)
        if (found := windows_of(run, part["name"], side)) is not None
    ]


_SIDE = ("Side", lambda row: row.side)
_LATENCIES: Columns[_Entry] = (
    ("TP50 ms", lambda row: f"{row.found.tp_ms(0.50):.2f}"),
    ("repeats", lambda row: over_repeats(row.found.tp_spread(0.50))),
    ("TP99 ms", lambda row: f"{row.found.tp_ms(0.99):.2f}"),
    ("repeats", lambda row: over_repeats(row.found.tp_spread(0.99))),
)
_COUNT = ("n", lambda row: str(len(row.found.latencies_ms)))
_CLIENTS: Columns[_Entry] = (
    _SIDE,
    ("clients", lambda row: str(row.request["clients"])),
    *_LATENCIES,
    ("mean batch", lambda row: f"{row.found.mean_batch:.2f}"),
    ("QPS", lambda row: over_repeats(Spread.of(row.found.items_per_s), 1)),
    _COUNT,
)
_LATE: Columns[_Entry] = (
    _SIDE,
    ("instances at work", lambda row: str(row.request["busy"])),
    ("batches before", lambda row: row.batches_before),
    *_LATENCIES,
    _COUNT,
)
_WAITING: Columns[_Entry] = (
    _SIDE,
    ("items", lambda row: str(row.request["waiting_items"])),
    (
        "they wait because",
        lambda row: "too few" if row.request["hold_s"] is None else "the instance works",
    ),
    (
        "CPU-s",
        lambda row: (
            NOT_AVAILABLE
            if row.found.refused
            else over_repeats(Spread.of(row.found.each("cpu_s")), 4)
        ),
    ),
    ("marks", lambda row: row.found.refused or ("ended early" if row.found.ended_early else "-")),
)
_OVERHEAD: Columns[_Entry] = (
    _SIDE,
    ("nodes", lambda row: row.name),
    ("CPU us an item", lambda row: over_repeats(Spread.of(row.found.us_an_item("cpu_s")), 1)),
    ("wall us an item", lambda row: over_repeats(Spread.of(row.found.us_an_item("wall_s")), 1)),
    ("items/s", lambda row: over_repeats(Spread.of(row.found.items_per_s), 0)),
    ("n", lambda row: f"{sum(row.found.each('items')):.0f}"),
)


def _batching(run: Run) -> str:
    clients, late, waiting = (
        _entries(run, window) for window in ("closed_loop", "late_request", "waiting")
    )
    return "\n".join(
        [
            f"## Closed-loop clients, timeout {_timeout_ms(clients[0])} ms\n",
            table(_CLIENTS, clients),
            f"## A lone late request, timeout {_timeout_ms(late[0])} ms\n",
            "With none at work, all before it is done. Else it comes 7 ms after the last batch "
            "before it began, which takes 10 ms: with both at work it waits 3 ms for the first of "
            "them, whichever runtime schedules it.\n",
            table(_LATE, late),
            f"## CPU time while items wait, in {run.settings['wait_s']:g} s\n",
            table(_WAITING, waiting),
        ]
    )


def _timeout_ms(row: _Entry) -> str:
    return str(next(iter(row.request["document"].values()))["batching_timeout"])


def _overhead(run: Run) -> str:
    rows = _entries(run, "closed_loop")
    request = rows[0].request
    return (
        f"## {request['clients']} clients, {len(request['document'])} nodes in a row that do "
        "nothing\n\n"
        "CPU time is that of the whole process, clients and measuring included.\n\n"
        f"{table(_OVERHEAD, rows)}"
    )


def _integrity(run: Run) -> str:
    found, settings = run.results, run.settings
    growth = bytes_an_item(found["samples"])
    memory = [sample["rss_bytes"] for sample in found["samples"]]
    rows = [
        ("items", found["items"]),
        ("of these failed on purpose", found["failed_on_purpose"]),
        ("clients", settings["clients"]),
        ("instances a node", settings["instances"]),
        ("duration", f"{found['wall_s']:.1f} s"),
        ("items a second", f"{found['items'] / found['wall_s']:.0f}"),
        (
            "memory: first, largest, last",
            " / ".join(map(size_text, (memory[0], max(memory), memory[-1]))),
        ),
        ("growth", NOT_AVAILABLE if growth is None else f"{growth:.2f} bytes an item"),
        *((f"wrong: {kind}", count) for kind, count in found["findings"].items()),
    ]
    graph = "; ".join(
        f"{name} -> {node['next'].replace(',', ', ')}" if "next" in node else f"{name} ends"
        for name, node in found["document"].items()
    )
    examples = [f"- {example}" for example in found["examples"]]
    return "\n".join([f"Graph: {graph}.\n", aligned_table(("What", "value"), rows), *examples])


_TABLES: Mapping[str, Callable[[Run], str]] = {
    "batching": _batching,
    "overhead": _overhead,
    "integrity": _integrity,
}


def _values(run: Run, folder: Path) -> Mapping[str, Any]:
    with_sides = "windows" in run.results
    return {
        # Folders of older versions call the reference an anchor.
        "missing": run.results.get("reference_missing", run.results.get("anchor_missing")),
        "shares": {side: idle_share(run, side) for side in sides(run)} if with_sides else None,
        "checks": check_table(runtime_checks(run)),
        "tables": _TABLES[run.kind](run),
        "picture": runtime_plots.draw(folder, run),
    }


def _terminal(run: Run) -> str:
    return f"{check_table(runtime_checks(run))}\n{_TABLES[run.kind](run)}"


PAGES = {
    kind: Page(title, "runtime.md", _values, _terminal)
    for kind, title in (
        ("batching", "When batches leave"),
        ("overhead", "What the runtime costs an item"),
        ("integrity", "No item lost, duplicated or swapped"),
    )
}
