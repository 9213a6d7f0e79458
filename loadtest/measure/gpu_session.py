"""`gpu_session`: everything that is measured on a GPU host, in one call and a given time.

A lent machine may go away at any moment, so the parts that matter most come first, and whatever
was measured is on disk. The comparison gets about half of the time, the sweep what is left then;
window lengths follow from that, and what does not fit is left out and said.
"""

from __future__ import annotations

import argparse
import tarfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from loadtest.errors import LoadTestError
from loadtest.measure import settings as chosen
from loadtest.measure.comparison import Comparison
from loadtest.measure.plan import TimeLimit
from loadtest.measure.time_limit import ends_by
from loadtest.progress import Progress, minutes
from loadtest.records import machine, raw_files
from loadtest.servers.variants import PIPELINE, PIPELINE_GPU, VARIANTS

# Shares of the budget at whose end the timed windows of the comparison, and then the comparison
# as a whole, with its stages and parts, should be over.
_COMPARED_SHARE = 0.30
_DETAILED_SHARE = 0.60
# For stopping servers, reports and the archive.
_RESERVE_S = 30.0
_SMALLEST_RESERVE_SHARE = 0.1


def measure_everything(
    options: argparse.Namespace, command: str, progress: Progress, report: Callable[[Path], str]
) -> None:
    """Compare, measure parts and stages, sweep, and pack.

    Args:
        options: those of the command line.
        command: the command line, for the record.
        progress: shows how it goes.
        report: makes the report of a folder, and gives what a terminal shows of it.

    Raises:
        LoadTestError: an option makes no sense, or a measurement failed; the others are done and
            written all the same.
    """
    started_s = time.monotonic()
    out = Path(options.out)
    reserve_s = min(_RESERVE_S, options.budget_s * _SMALLEST_RESERVE_SHARE)
    end_s = started_s + options.budget_s - reserve_s
    detailed_end_s = started_s + _DETAILED_SHARE * options.budget_s
    options.workloads = options.workload
    compare = replace(
        chosen.compare_settings(options),
        time_limit=TimeLimit(started_s + _COMPARED_SHARE * options.budget_s, detailed_end_s),
    )
    variant = options.sweep_variant or (PIPELINE_GPU if machine.has_gpu() else PIPELINE)
    options.variants = ",".join(_sweep_lines(variant, options.workers))
    options.repeats = options.sweep_repeats
    sweep = replace(chosen.sweep_settings(options), time_limit=TimeLimit(end_s, end_s))

    failures = []
    writers = []
    try:
        # What hangs when the time is over ends as if it had failed.
        with ends_by(end_s):
            for name, settings in (("compare", compare), ("sweep", sweep)):
                left = minutes(end_s - time.monotonic())
                progress.line(f"{name}: {left} left for all that follows")
                writers.append(raw_files.RawWriter(out / name))
                try:
                    Comparison(settings, command, writers[-1], progress).run()
                except LoadTestError as error:
                    progress.line(f"{name}: {error}")
                    failures.append(f"{name}: {error}")
    finally:
        progress.end_line()
        # Also after Ctrl-C: what was measured is worth a report.
        measured = [writer.folder for writer in writers if writer.has_saved]
        texts = [report(folder) for folder in measured]
        if options.archive is not None:
            pack(Path(options.archive), measured)
    print(*texts, sep="\n")
    print(f"results: {out} ({minutes(time.monotonic() - started_s)} minutes)")
    if failures:
        raise LoadTestError("; ".join(failures))


def _sweep_lines(variant: str, workers: list[int]) -> list[str]:
    """The variant with each number of server processes; one process needs no suffix."""
    if variant in VARIANTS:
        return [variant if count == 1 else f"{variant}-{count}w" for count in workers]
    return [variant]


def pack(archive: Path, folders: list[Path]) -> None:
    """Write the folders into a .tar.gz file, each under its own name.

    Raises:
        LoadTestError: the file cannot be written.
    """
    try:
        with tarfile.open(archive, "w:gz") as tar:
            for folder in folders:
                tar.add(folder, arcname=folder.name)
    except OSError as error:
        raise LoadTestError(
            f"archive {str(archive)!r} cannot be written: {error.strerror or error}"
        ) from error
