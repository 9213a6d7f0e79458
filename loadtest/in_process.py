"""What runs without a server: the in-process limit, and parts of the service alone."""

from __future__ import annotations

import json
import queue
import time
from collections.abc import Sequence

from loadtest.child_process import ChildProcess
from loadtest.errors import LoadTestError
from loadtest.gpu import GpuMonitor
from loadtest.measured_run import PartRun, Repeat
from loadtest.sampling import Sampler
from loadtest.variants import Variant

_REQUIRED = {"images_per_s", "batch_size", "threads", "by_batch_size"}


def measure_limit(
    command: Sequence[str], variant: Variant, repeat: int, gpus: GpuMonitor, timeout_s: float
) -> Repeat:
    """Run the limit once.

    Its samples cover its whole life, loading included: they tell whether somebody else used the
    machine meanwhile, not what the measured part used.

    Raises:
        LoadTestError: it fails, prints no result, or takes too long.
    """
    title = f"the {variant.name} limit"
    lines: queue.SimpleQueue[tuple[ChildProcess, str | None]] = queue.SimpleQueue()
    result: dict[str, object] = {}
    with (
        ChildProcess(command, title, lines, merge_stderr=False) as process,
        Sampler(process.pid, [], gpus) as sampler,
    ):
        start_s = sampler.sample()
        deadline_s = time.perf_counter() + timeout_s
        while True:
            try:
                _, line = lines.get(timeout=max(0.0, deadline_s - time.perf_counter()))
            except queue.Empty:
                raise LoadTestError(
                    f"{title} did not end within {timeout_s:g} s; "
                    f"its last line: {process.last_line}"
                ) from None
            if line is None:
                break
            result = _parse(line) or result
        # Its counters stay readable until its exit code is collected below.
        end_s = sampler.sample()
        code = process.wait(timeout_s)
        if code != 0 or not result:
            raise LoadTestError(
                f"{title} ended with exit code {code} and "
                f"{'a' if result else 'no'} result; its last line: {process.last_line}"
            )
        samples = sampler.samples(start_s)
    images_per_s = float(str(result.pop("images_per_s")))
    if images_per_s <= 0:
        raise LoadTestError(f"{title} measured {images_per_s:g} images/s")
    return Repeat(
        variant=variant.name,
        repeat=repeat,
        length_s=end_s - start_s,
        samples=samples,
        images_per_s=images_per_s,
        details=result,
    )


def measure_part(
    command: Sequence[str], variant: Variant, gpus: GpuMonitor, timeout_s: float
) -> PartRun:
    """Run one part of the service alone.

    A part that cannot run here is told in the result: it stands beside the comparison, which is
    worth as much without it.
    """
    try:
        details = measure_limit(command, variant, 1, gpus, timeout_s).details
    except LoadTestError as error:
        return PartRun(variant.name, variant.description, {}, 0, str(error))
    rates = {size: float(rate) for size, rate in details["by_batch_size"].items()}
    return PartRun(variant.name, variant.description, rates, int(details["threads"]), "")


def _parse(line: str) -> dict[str, object] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) and value.keys() >= _REQUIRED else None
