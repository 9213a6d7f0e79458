"""What an item's failure keeps of its batch: nothing that would have to wait for the collector."""

from __future__ import annotations

import gc
import traceback
import weakref
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import pytest

from pipeline import TASK_DATA_KEY, TASK_ERROR_KEY, TASK_RESULT_KEY, pipe
from pipeline.backends.buffer_pool import BufferPool
from pipeline.backends.interface import Backend, InstanceConfig, Item, fail
from pipeline.backends.registry import register
from service.handlers.outcomes import InvalidImageError

NUMBERS = [1, 2, 0, 3]


class Memory:
    """A block, or what else a backend works on."""

    made = 0
    alive: ClassVar[weakref.WeakSet[Memory]] = weakref.WeakSet()

    def __init__(self) -> None:
        self.alive.add(self)
        Memory.made += 1


@register("TestFailZero")
class FailZero(Backend):
    """Lends a block for each number, and fails 0."""

    max = len(NUMBERS)
    free_after_pass: ClassVar[list[int]] = []

    def init(self, config: InstanceConfig) -> None:  # noqa: ARG002 (it has no settings)
        self._pool = BufferPool[Memory]()

    def forward(self, items: Sequence[Item]) -> None:
        loan = None
        for item in items:
            try:
                loan = self._lend(item[TASK_DATA_KEY])
            except InvalidImageError as error:
                fail(item, error)
            else:
                item[TASK_RESULT_KEY] = loan

    def _lend(self, number: int) -> Any:
        loan = self._pool.lend(Memory())
        if number == 0:
            raise InvalidImageError("0 is no image")
        return loan

    def end_pass(self) -> None:
        self._pool.end_pass()
        free = 0
        while self._pool.take(1):
            free += 1
        self.free_after_pass.append(free)


@register("TestRaiseAtZero")
class RaiseAtZero(FailZero):
    """The same, but what fails 0 ends the call."""

    can_break = False

    def forward(self, items: Sequence[Item]) -> None:
        for item in items:
            item[TASK_RESULT_KEY] = self._lend(item[TASK_DATA_KEY])


@register("TestReturnNumber")
class ReturnNumber(Backend):
    """Lets go of what it gets."""

    max = len(NUMBERS)

    def init(self, config: InstanceConfig) -> None:
        pass

    def forward(self, items: Sequence[Item]) -> None:
        for item in items:
            item[TASK_DATA_KEY] = item[TASK_RESULT_KEY] = 7


@pytest.fixture(autouse=True)
def _no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    FailZero.free_after_pass.clear()
    Memory.made = 0
    yield
    gc.enable()


def run(backend: str) -> list[dict[str, Any]]:
    node = {"backend": backend, "batching_timeout": 10_000}
    items: list[dict[str, Any]] = [{TASK_DATA_KEY: number} for number in NUMBERS]
    with pipe({"node": node}) as running:
        running(items)
    return items


@pytest.mark.parametrize("backend", ["TestFailZero", "TestRaiseAtZero"])
@pytest.mark.parametrize("around", ["{}", "S[{}]", "S[{},TestReturnNumber]"])
def test_no_failure_keeps_memory(backend: str, around: str) -> None:
    items = run(around.format(backend))
    assert [TASK_ERROR_KEY in item for item in items] == [number == 0 for number in NUMBERS]
    del items
    assert not list(Memory.alive)


@pytest.mark.parametrize("backend", ["TestFailZero", "TestRaiseAtZero"])
def test_blocks_of_a_batch_with_a_failure_are_back_at_its_end(backend: str) -> None:
    errors = [item.get(TASK_ERROR_KEY) for item in run(f"S[{backend},TestReturnNumber]")]
    assert sum(FailZero.free_after_pass) == Memory.made >= len(NUMBERS)
    (cause,) = [error.cause for error in errors if error is not None]
    assert traceback.extract_tb(cause.__traceback__)[-1].name == "_lend"
