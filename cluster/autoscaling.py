"""How many replicas there are to be: so many that the wait stays short and 0.7 of the time is used.

The wait alone would not do: it is short until a replica has as much work as it can do, so that a
steady load would lose replicas until calls are refused, get them back, and lose them again. Nor
would the time that is used: where a batch takes as long as its images one by one, a replica has
few images in it until it has as much work as it can do. So the policy remembers how much work
busy replicas did, and keeps as many as the work of now takes.

Ray Serve's controller asks the policy; each replica records its metrics
(`record_autoscaling_stats`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LOAD = "load"
"""The metric: by how many times the replicas should be more."""
BUSY_SHARE = "busy_share"
"""The metric: the share of the time in which there was work."""
WORK = "work"
"""The metric: full batches a second."""

_SHARE_OF_LIMIT = 3
_WITHOUT_LIMIT_S = 0.15
# A model of which a single batch takes longer than that would want replicas for its first client.
_BATCHES = 2
_BUSY_SHARE = 0.7
# In the policy's state: the work of a replica that is busy all of the time, full batches a second.
_MOST_WORK = "most_work"


def metrics(
    expected_wait_s: float, full_batch_s: float, busy_share: float, max_queue_ms: int
) -> dict[str, float]:
    """A replica's metrics for the policy; a load of 1 is as much as there should be.

    Args:
        expected_wait_s: how long the images that are there take.
        full_batch_s: how long as many take as are worked on at once; 0 before there is any.
        busy_share: of the time since the last look it has had work; at most 1.
        max_queue_ms: longest expected wait before calls are refused; 0 for any.
    """
    kept_s = max_queue_ms / 1000 / _SHARE_OF_LIMIT or _WITHOUT_LIMIT_S
    wait = expected_wait_s / max(kept_s, _BATCHES * full_batch_s)
    return {
        LOAD: max(wait, busy_share / _BUSY_SHARE),
        BUSY_SHARE: busy_share,
        WORK: busy_share / full_batch_s if full_batch_s else 0.0,
    }


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
    """Scales by the loads and by the work, within the bounds and delays that Serve adds."""

    def __call__(self, context: Any) -> tuple[float, dict[str, Any]]:
        """How many replicas there are to be, and what the next call gets as its state.

        Args:
            context: Ray Serve's AutoscalingContext.
        """
        told = context.aggregated_metrics or {}
        loads, shares, work = (told.get(name) or {} for name in (LOAD, BUSY_SHARE, WORK))
        most_work = _most_work(shares, work) or context.policy_state.get(_MOST_WORK, 0.0)
        state = {_MOST_WORK: most_work}
        if not loads:
            return context.target_num_replicas, state
        # One that has told nothing has just come, and has had no work.
        wanted = sum(loads.values())
        if most_work:
            # Not more than there are to be: what was seen under other conditions adds none.
            needed = sum(work.values()) / (_BUSY_SHARE * most_work)
            wanted = max(wanted, min(needed, context.target_num_replicas))
        return wanted, state


def _most_work(shares: Mapping[Any, float], work: Mapping[Any, float]) -> float:
    """What a replica does that has work all of the time, by those that are busy; 0 if none is.

    Of those alone: one with few images says too much.
    """
    busy = [work[one] / share for one, share in shares.items() if share >= _BUSY_SHARE]
    return sum(busy) / len(busy) if busy else 0.0
