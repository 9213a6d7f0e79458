"""Rows with as many processes as the pipeline, so that no gain of its own is only theirs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from loadtest.servers.variants import PIPELINE, VARIANTS, Variant, split_workers


def with_processes(variant: Variant, count: int) -> Variant:
    """The variant with so many server processes; its name says how many if there are several."""
    plain = VARIANTS[split_workers(variant.name)[0]]
    return plain if count == 1 else plain.with_workers(count)


def process_controls(served: Sequence[Variant]) -> dict[str, Variant]:
    """The variants that `pipeline` cannot be compared with alone, each with a control.

    A control is the same variant with the pipeline's number of processes.

    Args:
        served: rows of a comparison, whose numbers of processes are known.

    Returns:
        Name of a variant to its control; empty where all have as many processes as the pipeline,
        or no pipeline is among them.
    """
    counts = [variant.workers for variant in served if split_workers(variant.name)[0] == PIPELINE]
    if not counts or counts[0] is None:
        return {}
    names = {variant.name for variant in served}
    controls = {
        variant.name: replace(with_processes(variant, counts[0]), is_control=True)
        for variant in served
        if variant.workers != counts[0]
    }
    return {name: control for name, control in controls.items() if control.name not in names}
