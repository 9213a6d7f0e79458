"""What a run on a cluster leaves: raw files, report and verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from loadtest.records.run import Check, Run
from tests.cluster_runs.pages import PAGES
from tests.robustness import results
from tests.robustness.results import Table


def finish(
    run: Run,
    folder: Path,
    checks: Sequence[Check],
    found: Mapping[str, Any],
    tables: Mapping[str, Table],
) -> None:
    """As of `tests.robustness`, with the pages of this package."""
    results.finish(run, folder, checks, found, tables, PAGES)


def report(folder: Path) -> str:
    """Make report.md and the plots of a folder; what a terminal shows of it."""
    return results.report(folder, PAGES)
