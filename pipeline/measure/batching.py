"""What `batching` measures: when batches leave, with a model that sleeps."""

from __future__ import annotations

from typing import Any

from pipeline.measure.side_process import LARGEST_SETTING, SLEEP_BACKEND, SMALLEST_SETTING
from pipeline.measure.sides import ANCHOR, OURS
from pipeline.measure.windows import Part

MODEL_S = 0.010
LARGEST_BATCH = 4
INSTANCES = 2
CLIENTS = (1, 2, 4, 10)
CLIENTS_TIMEOUT_MS = 50
LATE_TIMEOUT_MS = 200
# Late enough to be alone, early enough that instances still work.
_LATE_AFTER_S = 0.007
_WARM_UP_S = 0.3


def batching_parts(duration_s: float, trials: int, wait_s: float) -> list[Part]:
    """Everything, in the order in which it is measured.

    Args:
        duration_s: of a window with clients.
        trials: late requests in a window.
        wait_s: how long items wait while the CPU time is measured.
    """
    return [
        *(_clients(count, duration_s) for count in CLIENTS),
        *(_late(busy, trials) for busy in (0, 1, 2)),
        *(_behind_instance(count, wait_s) for count in (1, 2)),
        _below_smallest(wait_s),
    ]


def _document(name: str, instances: int, timeout_ms: int, smallest: int = 1) -> dict[str, Any]:
    """A pipe of one node; torchpipe wants a name that no other pipe of the process has."""
    return {
        name: {
            "backend": SLEEP_BACKEND,
            "instance_num": instances,
            "batching_timeout": timeout_ms,
            SMALLEST_SETTING: smallest,
            LARGEST_SETTING: LARGEST_BATCH,
        }
    }


def _clients(count: int, duration_s: float) -> Part:
    request = {
        "window": "closed_loop",
        "document": _document("clients", INSTANCES, CLIENTS_TIMEOUT_MS),
        "clients": count,
        "duration_s": duration_s,
        "data": MODEL_S,
        "with_latencies": True,
    }
    return Part(f"clients-{count}", request, {"duration_s": min(_WARM_UP_S, duration_s)})


def _late(busy: int, trials: int) -> Part:
    request = {
        "window": "late_request",
        "document": _document("late", INSTANCES, LATE_TIMEOUT_MS),
        "busy": busy,
        "trials": trials,
        "model_s": MODEL_S,
        "late_after_s": _LATE_AFTER_S,
    }
    # What makes the second instance begin: torchpipe holds anything less than a full batch back
    # while the first one works; ours gives the first of several items to the second instance, and
    # the others would still wait when the late one comes.
    by_side = {OURS: {"second_items": 1}, ANCHOR: {"second_items": LARGEST_BATCH}}
    return Part(f"late-{busy}-busy", request, {"trials": 1}, by_side)


def _behind_instance(waiting_items: int, wait_s: float) -> Part:
    request = {
        "window": "waiting",
        "document": _document("behind", 1, _longer_ms(wait_s)),
        "waiting_items": waiting_items,
        "hold_s": _longer_ms(wait_s) / 1000,
        "wait_s": wait_s,
        "model_s": MODEL_S,
    }
    return Part(f"wait-{waiting_items}-behind-instance", request, _brief(wait_s))


def _below_smallest(wait_s: float) -> Part:
    request = {
        "window": "waiting",
        "document": _document("below", 1, _longer_ms(wait_s), LARGEST_BATCH),
        "waiting_items": 1,
        "hold_s": None,
        "wait_s": wait_s,
        "model_s": MODEL_S,
    }
    return Part("wait-1-below-min", request, _brief(wait_s))


def _longer_ms(wait_s: float) -> int:
    """A time that has not passed when the CPU time is read; torchpipe takes whole numbers."""
    return round(1000 * (wait_s + 0.2))


def _brief(wait_s: float) -> dict[str, Any]:
    return {"wait_s": wait_s / 10}
