"""What runs without a server: the in-process upper bound, and parts of the service alone."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict

from interfaces.upper_bound import UpperBound
from loadtest.errors import LoadTestError
from loadtest.measure.sampling import Sampler
from loadtest.processes.child_process import ChildProcess
from loadtest.records.probe import Gpus, Probe
from loadtest.records.run import PartRun, Window
from loadtest.servers.variants import Variant


def measure_upper_bound(
    command: Sequence[str], variant: Variant, repeat: int, gpus: Gpus, timeout_s: float
) -> Window:
    """Run it once.

    Its samples cover its whole life, loading included: they tell whether other processes used the
    machine meanwhile, not what the measured part used.

    Raises:
        LoadTestError: it fails, prints no result, or takes too long.
    """
    title = f"the {variant.name} upper bound"
    result: UpperBound | None = None
    end_s = time.monotonic() + timeout_s
    with ChildProcess(command, title) as process, Sampler(Probe(process.pid, (), gpus)) as sampler:
        first = sampler.sample()
        overdue = f"did not end within {timeout_s:g} s"
        while (line := process.next_line(end_s, overdue)) is not None:
            result = UpperBound.from_line(line) or result
        # Its counters stay readable until its exit code is collected below.
        last = sampler.sample()
        code = process.wait(timeout_s)
        if code != 0 or result is None:
            raise LoadTestError(
                f"{title} ended with exit code {code} and "
                f"{'a' if result else 'no'} result; its last line: {process.last_line}"
            )
        samples = sampler.samples(first.at_s)
    if result.images_per_s <= 0:
        raise LoadTestError(f"{title} measured {result.images_per_s:g} images/s")
    details = asdict(result)
    return Window(
        variant=variant.name,
        repeat=repeat,
        length_s=last.at_s - first.at_s,
        samples=samples,
        images_per_s=details.pop("images_per_s"),
        details=details,
    )


def measure_part(command: Sequence[str], variant: Variant, gpus: Gpus, timeout_s: float) -> PartRun:
    """Run one part of the service alone.

    A part that cannot run here is told in the result: it stands beside the comparison, which is
    worth as much without it.
    """
    try:
        details = measure_upper_bound(command, variant, 1, gpus, timeout_s).details
    except LoadTestError as error:
        return PartRun(variant.name, variant.description, {}, 0, str(error))
    rates = {size: float(rate) for size, rate in details["by_batch_size"].items()}
    return PartRun(variant.name, variant.description, rates, int(details["threads"]), "")
