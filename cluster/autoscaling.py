"""How many replicas there are to be: so many that the wait stays short and 0.7 of the time is used.

The wait alone would not do: it is short until a replica has as much work as it can do, so that a
steady load would lose replicas until calls are refused, get them back, and lose them again.

Ray Serve's controller asks the policy; each replica records its load (`record_autoscaling_stats`).
"""

from __future__ import annotations

from typing import Any

LOAD = "load"
"""The metric: by how many times the replicas should be more."""

_SHARE_OF_LIMIT = 3
_WITHOUT_LIMIT_S = 0.15
# A model of which a single batch takes longer than that would want replicas for its first client.
_BATCHES = 2
_BUSY_SHARE = 0.7


def load(
    expected_wait_s: float, full_batch_s: float, busy_share: float, max_queue_ms: int
) -> float:
    """A replica's load: 1 where there should be as many replicas as there are.

    Args:
        expected_wait_s: how long the images that are there take.
        full_batch_s: how long as many take as are worked on at once.
        busy_share: of the time since the last look it has had work; at most 1.
        max_queue_ms: longest expected wait before calls are refused; 0 for any.
    """
    kept_s = max_queue_ms / 1000 / _SHARE_OF_LIMIT or _WITHOUT_LIMIT_S
    return max(expected_wait_s / max(kept_s, _BATCHES * full_batch_s), busy_share / _BUSY_SHARE)


class BusyShare:
    """The share of the time that a server has had work, from one look to the next.

    Args:
        now_s: the time.
    """

    def __init__(self, now_s: float) -> None:
        self._last_s = now_s
        self._last_busy_s = 0.0

    def look(self, busy_s: float, now_s: float) -> float:
        """The share since the last look.

        Args:
            busy_s: how long it has had work so far.
            now_s: the time.
        """
        passed_s, worked_s = now_s - self._last_s, busy_s - self._last_busy_s
        self._last_s, self._last_busy_s = now_s, busy_s
        return min(1.0, worked_s / passed_s) if passed_s > 0 else 0.0


class LoadPolicy:
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
