"""Backends around other backends: `Sequential` (or `S`) and `Torch`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from pipeline.backends.cpu_operator import is_plain_operator
from pipeline.backends.filters import (
    DEFAULT_FILTER,
    FIRST_FILTER,
    PlacedFilter,
    Status,
    decide,
    end,
    place_filter,
)
from pipeline.backends.interface import (
    PROFILE_KEY,
    Backend,
    Container,
    InstanceConfig,
    Item,
    fail,
    forward_isolated,
    initialise,
    result_becomes_data,
)
from pipeline.backends.registry import register
from pipeline.errors import PipelineConfigError
from pipeline.keys import TASK_DATA_KEY, TASK_REQUEST_SIZE_KEY, TASK_RESULT_KEY
from pipeline.language.settings import Setting, read_range


@dataclass
class _Part:
    """Members of a sequence that run one after the other.

    Attributes:
        members: each with its filter.
        by_item: whether all of them run over one item before the next one has its turn.
        hands_on: whether their results become the data of the next member at once, so that what
            they had, such as a whole image, does not wait for the other items.
        steps: what the members do with one item, where all of them are operators on the CPU with
            the usual filters; empty where they are not.
    """

    members: list[tuple[Backend, PlacedFilter]]
    by_item: bool
    hands_on: bool = False
    steps: tuple[Callable[[Item], Any], ...] = ()

    def find_steps(self) -> None:
        """Set `steps`."""
        (_, first), *others = self.members
        usual = first.name in (FIRST_FILTER, DEFAULT_FILTER) and all(
            placed.name == DEFAULT_FILTER for _, placed in others
        )
        operators = [backend for backend, _ in self.members if is_plain_operator(backend)]
        if self.by_item and usual and len(operators) == len(self.members):
            self.steps = tuple(operator.process for operator in operators)


@register("Sequential", "S", "SequentialV0", "S_v0")
class Sequential(Container):
    """Runs backends one after the other; the result of one is the data of the next.

    As in torchpipe, the backends are initialised from the last to the first, and a filter stands
    before each: `(name)` in front of it, or else "Run" before the first and "swap" before the
    others, with which an item that has no result goes no further. How many items it takes: 1 if
    every member takes 1, otherwise what all the members that take more have in common; a member
    that takes fewer runs in portions.

    Members next to each other that take one item run all over one item, and then over the next, so
    that no more than one image of a batch is there in full at a time. With `profile_stages` each
    member is done with all items before the next one begins.

    Args:
        inner: the members.
        ends_in_identity: whether an Identity behind them was left out: the result is the data, too.
    """

    def __init__(self, inner: Sequence[Backend], *, ends_in_identity: bool = False) -> None:
        super().__init__(inner)
        self._ends_in_identity = ends_in_identity
        self.any_thread = all(backend.any_thread for backend in inner)

    def init(self, config: InstanceConfig) -> None:
        """Initialise the members, last first; if one cannot, the others are closed again."""
        self._profile = config.profile_stages
        self._filters = [
            place_filter(
                backend.filter or (DEFAULT_FILTER if position else FIRST_FILTER), config.written
            )
            for position, backend in enumerate(self._inner)
        ]
        self._expired = config.expired
        with ExitStack() as undo:
            for backend in reversed(self._inner):
                initialise(backend, config)
                undo.callback(backend.close)
            self.any_thread = all(backend.any_thread for backend in self._inner)
            self._find_batch_size()
            self._parts = self._split()
            undo.pop_all()

    def _find_batch_size(self) -> None:
        batching = [backend for backend in self._inner if backend.max != 1]
        self.min = max((backend.min for backend in batching), default=1)
        self.max = min((backend.max for backend in batching), default=1)
        if self.min > self.max:
            raise PipelineConfigError(
                f"the backends of {type(self).__name__} have no batch size in common: one wants "
                f"at least {self.min} items, another takes at most {self.max}"
            )

    def _split(self) -> list[_Part]:
        """The members with their filters; those that run item by item stand together."""
        parts: list[_Part] = []
        for backend, placed in zip(self._inner, self._filters, strict=True):
            by_item = backend.max == 1 and not self._profile
            if by_item and parts and parts[-1].by_item:
                parts[-1].members.append((backend, placed))
                continue
            if parts and parts[-1].by_item and placed.name == DEFAULT_FILTER:
                parts[-1].hands_on = True
                placed = place_filter(FIRST_FILTER, {})
            parts.append(_Part([(backend, placed)], by_item))
        for part in parts:
            part.find_steps()
        return parts

    def forward(self, items: Sequence[Item]) -> None:
        """Run every member over the items that its filter lets run."""
        alive = list(items)
        for part in self._parts:
            if part.steps:
                alive = [item for item in alive if _step_through(part, item)]
            elif part.by_item:
                alive = [item for one in alive for item in self._run(part, [one])]
            else:
                alive = self._run(part, alive)
        if self._ends_in_identity:
            for item in alive:
                if TASK_RESULT_KEY in item:
                    item[TASK_DATA_KEY] = item[TASK_RESULT_KEY]

    def _run(self, part: _Part, alive: list[Item]) -> list[Item]:
        """Run some members; those items are returned that go on behind them."""
        for backend, placed in part.members:
            running, alive = _filtered(placed, alive)
            started_s = time.monotonic()
            for start in range(0, len(running), backend.max):
                forward_isolated(backend, running[start : start + backend.max], self._expired)
            if self._profile:
                _keep_time(backend, running, started_s)
        return [item for item in alive if result_becomes_data(item)] if part.hands_on else alive


def _step_through(part: _Part, item: Item) -> bool:
    """Do with an item what `Sequential._run` does, for members that have `steps`.

    Returns:
        Whether it goes on behind them.
    """
    if part.members[0][1].name == DEFAULT_FILTER and not result_becomes_data(item):
        return False
    *before, last = part.steps
    is_last = False
    try:
        for step in before:
            item[TASK_DATA_KEY] = step(item)
        is_last = True
        result = last(item)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 (what an operator raises is its item's fault)
        fail(item, error)
        return is_last and not part.hands_on
    item[TASK_DATA_KEY if part.hands_on else TASK_RESULT_KEY] = result
    return True


def _filtered(placed: PlacedFilter, items: list[Item]) -> tuple[list[Item], list[Item]]:
    """Two lists: the items for the next backend, and the items that go on after it."""
    name = placed.name
    if name == FIRST_FILTER:
        return items, items
    if name == DEFAULT_FILTER:
        with_result = [item for item in items if result_becomes_data(item)]
        return with_result, with_result
    running, alive = [], []
    for item in items:
        status = decide(placed, item)
        if status is Status.RUN:
            running.append(item)
            alive.append(item)
        elif status is Status.SKIP:
            alive.append(item)
        else:
            end(name, item)
    return running, alive


def _keep_time(backend: Backend, items: Sequence[Item], started_s: float) -> None:
    """Add the time of one member to the items, once the GPU has done what it enqueued."""
    if torch.cuda.is_initialized():
        torch.cuda.current_stream().synchronize()
    took_ms = (time.monotonic() - started_s) * 1000
    for item in items:
        item.setdefault(PROFILE_KEY, {})[backend.stage] = took_ms


class _Around(Container):
    """Runs its one backend as it is."""

    def __init__(self, inner: Sequence[Backend]) -> None:
        if len(inner) != 1:
            name = type(self).__name__
            raise PipelineConfigError(
                f"{name} takes one backend in its brackets, got {len(inner)}; "
                f"put several into {name}[Sequential[...]]"
            )
        super().__init__(inner)
        self.any_thread = inner[0].any_thread

    def init(self, config: InstanceConfig) -> None:
        """Initialise the inner backend."""
        (inner,) = self._inner
        initialise(inner, config)
        self.min, self.max, self.can_break = inner.min, inner.max, inner.can_break
        self.any_thread = inner.any_thread

    def forward(self, items: Sequence[Item]) -> None:
        """Run the inner backend."""
        self._inner[0].forward(items)


@register("Torch", "SyncTensor", "StreamGuard", "TensorSync")
class Torch(_Around):
    """Runs its one backend, with initialisation and forward in the same thread.

    torchpipe gives an instance its stream here and waits for it. In this pipeline every instance
    that works on a GPU has a stream of its own and hands on results that are there, with this
    backend around it or without. Without brackets it is an Identity, which a sequence leaves out.
    """


@register("Python")
class Python(_Around):
    """Runs the backend in Python of that name, `Python[Scale]`: the same as `Scale`."""


@register("Range")
class Range(Container):
    """Runs its one backend with another range of batch sizes: `range = "min,max"`."""

    settings: ClassVar[tuple[Setting, ...]] = (
        Setting(
            "range",
            read_range,
            'fewest and most items: "1,4"',
            None,
            help="the batch sizes",
            unit="rows",
            example="1,4",
        ),
    )

    def __init__(self, inner: Sequence[Backend]) -> None:
        if len(inner) != 1:
            raise PipelineConfigError(f"Range takes one backend in its brackets, got {len(inner)}")
        super().__init__(inner)

    def init(self, config: InstanceConfig) -> None:
        """Read the range and initialise the inner backend."""
        wanted = config.settings["range"]
        if wanted is None:
            raise PipelineConfigError('Range needs range, fewest and most items: range = "1,4"')
        self._expired = config.expired
        initialise(self._inner[0], config)
        self.min, self.max = wanted

    def forward(self, items: Sequence[Item]) -> None:
        """Run the inner backend, in portions if it takes fewer items at once."""
        inner = self._inner[0]
        for portion in _portions(items, inner.max):
            forward_isolated(inner, portion, self._expired)


def _portions(items: Sequence[Item], most_rows: int) -> Iterator[list[Item]]:
    """The items in their order; one of more rows than that comes alone."""
    portion: list[Item] = []
    rows = 0
    for item in items:
        size: int = item.get(TASK_REQUEST_SIZE_KEY, 1)
        if portion and rows + size > most_rows:
            yield portion
            portion, rows = [], 0
        portion.append(item)
        rows += size
    yield portion
