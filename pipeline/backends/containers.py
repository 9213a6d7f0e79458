"""Backends around other backends: `Sequential` (or `S`) and `Torch`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import ClassVar

import torch

from pipeline.backend import (
    PROFILE_KEY,
    Backend,
    Container,
    InstanceConfig,
    Item,
    forward_isolated,
    initialise,
    result_becomes_data,
)
from pipeline.errors import PipelineConfigError
from pipeline.filters import DEFAULT_FILTER, FIRST_FILTER, Status, decide
from pipeline.registry import register
from pipeline.settings import Setting, read_range


@register("Sequential", "S")
class Sequential(Container):
    """Runs backends one after the other; the result of one is the data of the next.

    As in torchpipe, the backends are initialised from the last to the first, and a filter stands
    before each: `(name)` in front of it, or else "Run" before the first and "swap" before the
    others, with which an item that has no result goes no further. How many items it takes: 1 if
    every member takes 1, otherwise what all the members that take more have in common; a member
    that takes fewer runs in portions.
    """

    def __init__(self, inner: Sequence[Backend]) -> None:
        super().__init__(inner)
        self._min = self._max = 1
        self.any_thread = all(backend.any_thread for backend in inner)

    @property
    def min(self) -> int:
        """Fewest items that all members want."""
        return self._min

    @property
    def max(self) -> int:
        """Most items that all batching members take."""
        return self._max

    def init(self, config: InstanceConfig) -> None:
        """Initialise the members, last first; if one cannot, the others are closed again."""
        self._profile = config.profile_stages
        self._filters = [
            backend.filter or (DEFAULT_FILTER if position else FIRST_FILTER)
            for position, backend in enumerate(self._inner)
        ]
        self._expired = config.expired
        with ExitStack() as undo:
            for backend in reversed(self._inner):
                initialise(backend, config)
                undo.callback(backend.close)
            self._find_batch_size()
            undo.pop_all()

    def _find_batch_size(self) -> None:
        batching = [backend for backend in self._inner if backend.max != 1]
        self._min = max((backend.min for backend in batching), default=1)
        self._max = min((backend.max for backend in batching), default=1)
        if self._min > self._max:
            raise PipelineConfigError(
                f"the backends of {type(self).__name__} have no batch size in common: one wants "
                f"at least {self._min} items, another takes at most {self._max}"
            )

    def forward(self, items: Sequence[Item]) -> None:
        """Run every member over the items that its filter lets run."""
        alive = list(items)
        for backend, name in zip(self._inner, self._filters, strict=True):
            running, alive = _filtered(name, alive)
            started_s = time.monotonic()
            for start in range(0, len(running), backend.max):
                forward_isolated(backend, running[start : start + backend.max], self._expired)
            if self._profile:
                _keep_time(backend, running, started_s)


def _filtered(name: str, items: list[Item]) -> tuple[list[Item], list[Item]]:
    """The items that the next backend runs, and those that go on behind it."""
    if name == FIRST_FILTER:
        return items, items
    if name == DEFAULT_FILTER:
        with_result = [item for item in items if result_becomes_data(item)]
        return with_result, with_result
    running, alive = [], []
    for item in items:
        status = decide(name, item)
        if status is Status.RUN:
            running.append(item)
            alive.append(item)
        elif status is Status.SKIP:
            alive.append(item)
    return running, alive


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
        initialise(self._inner[0], config)
        self.can_break = self._inner[0].can_break

    def forward(self, items: Sequence[Item]) -> None:
        """Run the inner backend."""
        self._inner[0].forward(items)


@register("Range")
class Range(Container):
    """Runs its one backend with another range of batch sizes: `range = "min,max"`."""

    settings: ClassVar[tuple[Setting, ...]] = (
        Setting("range", read_range, 'fewest and most items: "1,4"', None),
    )

    def __init__(self, inner: Sequence[Backend]) -> None:
        if len(inner) != 1:
            raise PipelineConfigError(f"Range takes one backend in its brackets, got {len(inner)}")
        super().__init__(inner)

    @property
    def min(self) -> int:
        """The first number of `range`."""
        return self._range[0]

    @property
    def max(self) -> int:
        """The second number of `range`."""
        return self._range[1]

    def init(self, config: InstanceConfig) -> None:
        """Read the range and initialise the inner backend."""
        wanted = config.settings["range"]
        if wanted is None:
            raise PipelineConfigError('Range needs range, fewest and most items: range = "1,4"')
        self._expired = config.expired
        initialise(self._inner[0], config)
        self._range: tuple[int, int] = wanted

    def forward(self, items: Sequence[Item]) -> None:
        """Run the inner backend, in portions if it takes fewer items at once."""
        inner = self._inner[0]
        for start in range(0, len(items), inner.max):
            forward_isolated(inner, items[start : start + inner.max], self._expired)
