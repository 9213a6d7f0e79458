"""Writes what was measured."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from loadtest.records.raw_files import write_table
from scaling.measure import POINTS, measure
from scaling.validation import CALLS, COLUMNS


def write_measured(
    folder: Path,
    repeats: int,
    window_s: float,
    seed: int,
    command: str,
    tell: Callable[[str], None],
) -> None:
    """Measure all points, and write run.json and calls.csv.gz.

    Args:
        folder: that gets them.
        repeats: windows of every point.
        window_s: length of a window.
        seed: decides arrivals and choices.
        command: for the record.
        tell: gets a line for each window.
    """
    document, rows = measure(POINTS, repeats, window_s, seed, tell)
    write_table(folder, CALLS, COLUMNS, rows)
    text = json.dumps({"command": command, **document}, indent=1)
    (folder / "run.json").write_text(text + "\n", encoding="utf-8")
