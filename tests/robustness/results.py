"""What a run leaves: raw files, report and verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from loadtest.errors import LoadTestError
from loadtest.records import machine, raw_files
from loadtest.records.run import Check, Run
from loadtest.report.document import Page, build
from tests.robustness.pages import PAGES

Table = tuple[Sequence[str], Sequence[Sequence[Any]]]


def finish(
    run: Run,
    folder: Path,
    checks: Sequence[Check],
    results: Mapping[str, Any],
    tables: Mapping[str, Table],
    pages: Mapping[str, Page] = PAGES,
) -> None:
    """Write it all down, show it, and judge.

    Args:
        run: as it began.
        folder: where to.
        checks: what was to be shown.
        results: what was found, for run.json.
        tables: raw tables by name: columns and rows.
        pages: how reports are made.

    Raises:
        LoadTestError: a check failed.
    """
    found = {"ended": machine.utc_now(), **machine.without_paths(dict(results))}
    raw_files.write(folder, replace(run, checks=[*checks], results=found))
    for name, (columns, rows) in tables.items():
        raw_files.write_table(folder, name, columns, rows)
    print(report(folder, pages))
    failed = [check.name for check in checks if not check.met]
    if failed:
        raise LoadTestError(f"{len(failed)} broken promise(s): {'; '.join(failed)}")


def report(folder: Path, pages: Mapping[str, Page] = PAGES) -> str:
    """Make report.md and the plots of a folder; what a terminal shows of it."""
    run = build(folder, pages)
    return f"{pages[run.kind].terminal(run)}\nresults: {folder}"
