"""`integrity`: no item is lost, duplicated or swapped by the runtime, and memory stays flat."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict

from interfaces.benchmark import CHECK_ANSWERS, Checking, CheckItems, Failed
from interfaces.messages import from_json, to_json
from loadtest.errors import LoadTestError
from loadtest.processes.child_process import ChildProcess
from loadtest.progress import Progress
from loadtest.records.run import Run, new_run
from loadtest.runtime.parts import OURS

_SILENCE_LIMIT_S = 300.0


def measure_integrity(
    items: int, clients: int, instances: int, sample_s: float, command: str, progress: Progress
) -> Run:
    """Run `python -m pipeline.benchmark.integrity`, which sends the items and checks each.

    Raises:
        LoadTestError: the graph cannot run, or the process ends.
    """
    settings = {"clients": clients, "instances": instances, "sample_s": sample_s}
    run = new_run("integrity", command, settings)
    request = to_json(CheckItems(items, clients, instances, sample_s))
    with ChildProcess(
        [sys.executable, "-m", "pipeline.benchmark.integrity", request], "the check of integrity"
    ) as process:
        overdue = f"said nothing for {_SILENCE_LIMIT_S:g} s"
        while line := process.next_line(time.monotonic() + _SILENCE_LIMIT_S, overdue):
            answer = from_json(line, CHECK_ANSWERS)
            if isinstance(answer, Failed):
                raise LoadTestError(answer.reason)
            if isinstance(answer, Checking):
                progress.update(answer.progress)
                continue
            run.results.update(asdict(answer))
            run.settings.update(run.results.pop("settings"))
            run.versions.clear()
            run.versions.update({OURS: run.results.pop("versions")})
            return run
        raise LoadTestError(process.ended())
