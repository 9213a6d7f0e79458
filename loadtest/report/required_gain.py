"""The judgement of `compare --fail_below`: is the pipeline's gain at least what was asked?"""

from __future__ import annotations

from collections.abc import Sequence

from loadtest.errors import BelowLimitError, LoadTestError
from loadtest.records.run import Run
from loadtest.report.load_page import found_verdict
from loadtest.report.summary import Row, summarise
from loadtest.report.tables import interval
from loadtest.servers.variants import BASELINE
from measurement.statistics import Ratio


def require_gain(run: Run, least: float) -> str:
    """Judge the ratio of the fastest pipeline to the baseline in every workload.

    A ratio passes if its whole 95 % interval does, so that a repeated measurement passes, too, and
    if every image got its right answer.

    Returns:
        A line a workload: its ratio, which passed.

    Raises:
        BelowLimitError: one did not pass.
        LoadTestError: there is no ratio.
    """
    passed, failed = [], []
    for workload in run.workloads:
        rows = summarise(run, workload)
        told = found_verdict(run, workload, rows)
        if told.gain is None or told.pipeline is None:
            raise LoadTestError(f"{workload.name}: no ratio to {BASELINE!r} was measured")
        text = (
            f"{workload.name}: {told.pipeline.name!r} serves {told.gain.spread.median:.3f} times "
            f"the images per second of {BASELINE!r}, "
            f"95 % interval {interval(told.gain.interval, 3)}"
        )
        if lost := _failing(rows, (BASELINE, told.pipeline.name)):
            failed.append(f"{text}, with {lost}")
        elif _passes(told.gain, least):
            passed.append(f"{text}: at least {least:g}")
        elif told.gain.interval.low is None:
            failed.append(f"{text}: one repeat proves nothing, take more --repeats")
        else:
            failed.append(f"{text}: not all of it is at least {least:g}")
    if failed:
        raise BelowLimitError(f"below --fail_below {least:g}: {'; '.join(failed)}")
    return "\n".join(passed)


def _failing(rows: Sequence[Row], names: Sequence[str]) -> str:
    """How many images those of these names lost, in words; "" for none."""
    return " and ".join(
        f"{row.failed_images} images to {row.name!r} without an answer"
        for row in rows
        if row.name in names and row.failed_images
    )


def _passes(gain: Ratio, least: float) -> bool:
    return gain.interval.low is not None and gain.interval.low >= least
