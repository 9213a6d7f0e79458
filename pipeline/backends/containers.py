"""Backends around other backends: `Sequential` (or `S`) and `Torch`."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch

from pipeline.backend import (
    FAILURE_KEY,
    PROFILE_KEY,
    Backend,
    Container,
    InstanceConfig,
    Item,
    forward_isolated,
    result_becomes_data,
)
from pipeline.errors import PipelineConfigError
from pipeline.registry import register


@register("Sequential", "S")
class Sequential(Container):
    """Runs backends one after the other; the result of one is the data of the next.

    As in torchpipe, the backends are initialised from the last to the first, and an item that a
    backend leaves without a result goes no further. How many items it takes: 1 if every member
    takes 1, otherwise what all the members that take more have in common; a member that takes
    fewer runs in portions.
    """

    def __init__(self, inner: Sequence[Backend]) -> None:
        super().__init__(inner)
        self._min = self._max = 1

    @property
    def min(self) -> int:
        """Fewest items that all members want."""
        return self._min

    @property
    def max(self) -> int:
        """Most items that all batching members take."""
        return self._max

    def init(self, config: InstanceConfig) -> None:
        """Initialise the members, last first."""
        self._profile = config.profile_stages
        for backend in reversed(self._inner):
            backend.init(config)
        batching = [backend for backend in self._inner if backend.max != 1]
        self._min = max((backend.min for backend in batching), default=1)
        self._max = min((backend.max for backend in batching), default=1)
        if self._min > self._max:
            raise PipelineConfigError(
                f"the backends of {type(self).__name__} have no batch size in common: one wants "
                f"at least {self._min} items, another takes at most {self._max}"
            )

    def forward(self, items: Sequence[Item]) -> None:
        """Run every member over the items that are still alive."""
        alive = list(items)
        for position, backend in enumerate(self._inner):
            if position > 0:
                alive = [item for item in alive if result_becomes_data(item)]
            started_s = time.monotonic()
            for start in range(0, len(alive), backend.max):
                forward_isolated(backend, alive[start : start + backend.max])
            if self._profile:
                _keep_time(backend, alive, started_s)
            alive = [item for item in alive if FAILURE_KEY not in item]


def _keep_time(backend: Backend, items: Sequence[Item], started_s: float) -> None:
    """Add the time of one member to the items, once the GPU has done what it enqueued."""
    if torch.cuda.is_initialized():
        torch.cuda.current_stream().synchronize()
    took_ms = (time.monotonic() - started_s) * 1000
    for item in items:
        item.setdefault(PROFILE_KEY, {})[type(backend).__name__] = took_ms


@register("Torch", "SyncTensor", "StreamGuard")
class Torch(Container):
    """Runs its one backend, with initialisation and forward in the same thread.

    torchpipe gives an instance its stream here and waits for it. In this pipeline every instance
    that works on a GPU has a stream of its own and hands on results that are there, with this
    backend around it or without.
    """

    def __init__(self, inner: Sequence[Backend]) -> None:
        if len(inner) != 1:
            raise PipelineConfigError(
                f"Torch takes one backend in its brackets, got {len(inner)}; "
                "put several into Torch[Sequential[...]]"
            )
        super().__init__(inner)

    @property
    def min(self) -> int:
        """Fewest items that the inner backend wants."""
        return self._inner[0].min

    @property
    def max(self) -> int:
        """Most items that the inner backend takes."""
        return self._inner[0].max

    def init(self, config: InstanceConfig) -> None:
        """Initialise the inner backend."""
        self._inner[0].init(config)

    def forward(self, items: Sequence[Item]) -> None:
        """Run the inner backend."""
        self._inner[0].forward(items)
