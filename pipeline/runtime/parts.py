"""What a node is made of: a rule for its batches, and a runner for each of its instances."""

from __future__ import annotations

from pipeline.runtime.batch_rule import BatchRule
from pipeline.runtime.batch_runner import BatchRunner, RunPlan
from pipeline.runtime.device import Device
from pipeline.runtime.fair_order import FairOrder


class Parts:
    """Makes the parts of a network's nodes.

    What records a pipeline at work, such as a trace, makes parts that also tell of what they do. So
    a pipeline that nothing records pays nothing for it.
    """

    def rule(self, order: FairOrder, timeout_ms: float) -> BatchRule:
        """By which batches leave the queue of a node; see `BatchRule`."""
        return BatchRule(order, timeout_ms)

    def runner(self, plan: RunPlan, device: Device, label: str) -> BatchRunner:
        """What runs the batches of an instance with that name; see `BatchRunner`."""
        del label
        return BatchRunner(plan, device)


PLAIN_PARTS = Parts()
"""Those that tell of nothing."""
