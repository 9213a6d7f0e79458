"""`integrity`: no item is lost, duplicated or swapped by the runtime, and memory stays flat."""

from __future__ import annotations

import json
import sys
import time

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
    request = json.dumps({"items": items, **settings})
    with ChildProcess(
        [sys.executable, "-m", "pipeline.benchmark.integrity", request], "the check of integrity"
    ) as process:
        overdue = f"said nothing for {_SILENCE_LIMIT_S:g} s"
        while line := process.next_line(time.monotonic() + _SILENCE_LIMIT_S, overdue):
            answer = json.loads(line)
            if "error" in answer:
                raise LoadTestError(answer["error"])
            if "progress" in answer:
                progress.update(answer["progress"])
                continue
            run.settings.update(answer.pop("settings"))
            run.versions.clear()
            run.versions.update({OURS: answer.pop("versions")})
            run.results.update(answer)
            return run
        raise LoadTestError(process.ended())
