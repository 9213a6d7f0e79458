"""What `batching` and `overhead` measure of both sides: parts, each a window of a side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from interfaces.benchmark import (
    COPY_BACKEND,
    LARGEST_SETTING,
    SLEEP_BACKEND,
    SMALLEST_SETTING,
    ClosedLoop,
    LateRequest,
    Waiting,
    Window,
)

OURS, REFERENCE = "thriftpipe", "torchpipe"

MODEL_S = 0.010
LARGEST_BATCH = 4
_INSTANCES = 2
_CLIENTS = (1, 2, 4, 10)
_CLIENTS_TIMEOUT_MS = 50
_LATE_TIMEOUT_MS = 200
# Late enough to be alone, early enough that instances still work.
_LATE_AFTER_S = 0.007
_CHAIN_CLIENTS = 10
_CHAIN_NODES = 3
_WARM_UP_S = 0.5


@dataclass(frozen=True)
class Part:
    """What is measured, on both sides alike.

    Attributes:
        name: how the raw data calls it.
        window: what the sides are asked for.
        warm_up: what is otherwise in the window that is not kept.
        by_side: what is otherwise for a side, by the side's name.
    """

    name: str
    window: Window
    warm_up: Mapping[str, Any]
    by_side: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def window_for(self, side: str) -> Window:
        """The window of a side."""
        return replace(self.window, **self.by_side.get(side, {}))

    def warm_up_for(self, side: str) -> Window:
        """The window of a side that is not kept."""
        return replace(self.window_for(side), **self.warm_up)

    def record(self) -> dict[str, Any]:
        """The part as raw data have it."""
        request = {"window": self.window.window, **vars(self.window)}
        others = {"warm_up": self.warm_up, "by_side": self.by_side}
        return {"name": self.name, "request": request, **others}


def batching_parts(duration_s: float, trials: int, wait_s: float) -> list[Part]:
    """When batches leave, with a model that sleeps, in the order in which it is measured.

    Args:
        duration_s: of a window with clients.
        trials: late requests in a window.
        wait_s: how long items wait while the CPU time is measured.
    """
    return [
        *(_clients(count, duration_s) for count in _CLIENTS),
        *(_late(busy, trials) for busy in (0, 1, 2)),
        *(_waiting(f"wait-{n}-behind-instance", n, wait_s, is_held=True) for n in (1, 2)),
        _waiting("wait-1-below-min", 1, wait_s, is_held=False),
    ]


def overhead_parts(duration_s: float) -> list[Part]:
    """An item's way through nodes that do nothing: one item at a time, and in batches."""
    return [_chain(largest, duration_s) for largest in (1, 4)]


def _node(
    backend: str, instances: int, timeout_ms: int, largest: int = LARGEST_BATCH, smallest: int = 1
) -> dict[str, Any]:
    return {
        "backend": backend,
        "instance_num": instances,
        "batching_timeout": timeout_ms,
        SMALLEST_SETTING: smallest,
        LARGEST_SETTING: largest,
    }


def _clients(count: int, duration_s: float) -> Part:
    window = ClosedLoop(
        # torchpipe wants names of nodes that no other pipe of the process has.
        document={"clients": _node(SLEEP_BACKEND, _INSTANCES, _CLIENTS_TIMEOUT_MS)},
        clients=count,
        duration_s=duration_s,
        data=MODEL_S,
        with_latencies=True,
    )
    return Part(f"clients-{count}", window, {"duration_s": min(_WARM_UP_S, duration_s)})


def _late(busy: int, trials: int) -> Part:
    window = LateRequest(
        document={"late": _node(SLEEP_BACKEND, _INSTANCES, _LATE_TIMEOUT_MS)},
        busy=busy,
        trials=trials,
        model_s=MODEL_S,
        late_after_s=_LATE_AFTER_S,
    )
    # What makes the second instance begin: torchpipe holds anything less than a full batch back
    # while the first one works; ours gives the first of several items to the second instance, and
    # the others would still wait when the late one comes.
    by_side = {OURS: {"second_items": 1}, REFERENCE: {"second_items": LARGEST_BATCH}}
    return Part(f"late-{busy}-busy", window, {"trials": 1}, by_side)


def _waiting(name: str, waiting_items: int, wait_s: float, *, is_held: bool) -> Part:
    """Items wait behind a held instance, or because they are fewer than a batch may have."""
    # A time that has not passed when the CPU time is read; torchpipe takes whole numbers.
    longer_ms = round(1000 * (wait_s + 0.2))
    smallest = 1 if is_held else LARGEST_BATCH
    node = _node(SLEEP_BACKEND, 1, longer_ms, smallest=smallest)
    window = Waiting(
        document={"behind" if is_held else "below": node},
        waiting_items=waiting_items,
        hold_s=longer_ms / 1000 if is_held else None,
        wait_s=wait_s,
        model_s=MODEL_S,
    )
    return Part(name, window, {"wait_s": wait_s / 10})


def _chain(largest: int, duration_s: float) -> Part:
    # torchpipe's own timeouts for nodes that set none.
    timeout_ms = 0 if largest == 1 else 4
    document = {
        f"chain_{largest}_{number}": _node(COPY_BACKEND, 1, timeout_ms, largest)
        for number in range(_CHAIN_NODES)
    }
    for name, following in pairwise(document):
        document[name]["next"] = following
    window = ClosedLoop(
        document=document,
        clients=_CHAIN_CLIENTS,
        duration_s=duration_s,
        data=1.0,
        with_latencies=False,
    )
    return Part(f"chain-max-{largest}", window, {"duration_s": min(_WARM_UP_S, duration_s)})
