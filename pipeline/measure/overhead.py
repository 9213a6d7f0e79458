"""What `overhead` measures: an item's way through nodes that do nothing."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from pipeline.measure.side_process import COPY_BACKEND, LARGEST_SETTING, SMALLEST_SETTING
from pipeline.measure.windows import Part

CLIENTS = 10
NODES = 3
_WARM_UP_S = 0.5


def overhead_parts(duration_s: float) -> list[Part]:
    """The chain with nodes that take one item at a time, and with nodes that batch.

    Args:
        duration_s: of a window.
    """
    return [_chain(largest, duration_s) for largest in (1, 4)]


def _chain(largest: int, duration_s: float) -> Part:
    names = [f"chain_{largest}_{number}" for number in range(NODES)]
    document: dict[str, dict[str, Any]] = {
        name: {
            "backend": COPY_BACKEND,
            "instance_num": 1,
            # torchpipe's own values for nodes that set none.
            "batching_timeout": 0 if largest == 1 else 4,
            SMALLEST_SETTING: 1,
            LARGEST_SETTING: largest,
        }
        for name in names
    }
    for name, following in pairwise(names):
        document[name]["next"] = following
    request = {
        "window": "closed_loop",
        "document": document,
        "clients": CLIENTS,
        "duration_s": duration_s,
        "data": 1.0,
        "with_latencies": False,
    }
    return Part(f"chain-max-{largest}", request, {"duration_s": min(_WARM_UP_S, duration_s)})
