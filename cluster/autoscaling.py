"""How many replicas there are to be: so many that the expected wait stays short.

Ray Serve's controller asks the policy; each replica records its load (`record_autoscaling_stats`).
"""

from __future__ import annotations

from typing import Any

LOAD = "expected_wait"
"""The metric: an image's expected wait, as a multiple of what is to be kept."""

_SHARE_OF_LIMIT = 3
_WITHOUT_LIMIT_S = 0.15
# A model of which a single batch takes longer than that would want replicas for its first client.
_BATCHES = 2


def load(expected_wait_s: float, full_batch_s: float, max_queue_ms: int) -> float:
    """A replica's load: 1 where there should be as many replicas as there are.

    Args:
        expected_wait_s: how long the images that are there take.
        full_batch_s: how long as many take as are worked on at once.
        max_queue_ms: longest expected wait before calls are refused; 0 for any.
    """
    kept_s = max_queue_ms / 1000 / _SHARE_OF_LIMIT or _WITHOUT_LIMIT_S
    return expected_wait_s / max(kept_s, _BATCHES * full_batch_s)


class ExpectedWaitPolicy:
    """Scales by the mean load, within the bounds and delays that Serve adds."""

    def __call__(self, context: Any) -> tuple[float, dict[str, Any]]:
        """How many replicas there are to be.

        Args:
            context: Ray Serve's AutoscalingContext.
        """
        loads = (context.aggregated_metrics or {}).get(LOAD) or {}
        if not loads:
            return context.target_num_replicas, {}
        mean = sum(loads.values()) / len(loads)
        return context.current_num_replicas * mean, {}
