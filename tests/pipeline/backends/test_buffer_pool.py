"""Memory that a backend uses again belongs to one pass of a batch through the node."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from pipeline import TASK_DATA_KEY, TASK_RESULT_KEY, pipe
from pipeline.backends.buffer_pool import BufferPool, Loan
from pipeline.backends.interface import Backend, InstanceConfig, Item, ItemBackend
from pipeline.backends.registry import register

MOST = 4


class TestBufferPool:
    def test_a_block_is_free_once_the_pass_is_over_and_its_loan_gone(self) -> None:
        memory = BufferPool[bytearray]()
        block = bytearray(1)
        assert memory.take(1) is None
        loan = memory.lend(block)
        memory.end_pass()
        assert memory.take(1) is None
        del loan
        assert memory.take(1) is None
        memory.end_pass()
        taken = memory.take(1)
        assert taken is not None
        assert taken[0] is block

    def test_blocks_that_are_too_few_give_way_to_enough(self) -> None:
        memory = BufferPool[int]()
        for number in (1, 2):
            memory.lend(number)
        memory.end_pass()
        assert memory.take(3) is None
        for number in (3, 4, 5):
            memory.lend(number)
        memory.end_pass()
        assert memory.take(2) == [3, 4]
        assert memory.take(1) == [5]

    def test_what_is_not_worth_its_memory_is_not_kept(self) -> None:
        memory = BufferPool[int](keeps=lambda block: block < 3)
        for number in (1, 3, 2):
            memory.lend(number)
        memory.end_pass()
        assert memory.take(2) == [1, 2]

    def test_what_comes_back_later_than_clear_is_dropped_with_it(self) -> None:
        memory = BufferPool[int]()
        memory.lend(1)
        memory.end_pass()
        memory.lend(2)
        memory.clear()
        memory.end_pass()
        assert memory.take(1) is None


@register("TestDecodeInto")
class DecodeInto(Backend):
    """Writes numbers into memory of its own, as `DecodeTensor` writes pixels."""

    made = 0

    @property
    def max(self) -> int:
        return MOST

    def init(self, config: InstanceConfig) -> None:  # noqa: ARG002
        self._memory = BufferPool[bytearray]()

    def forward(self, items: Sequence[Item]) -> None:
        blocks = self._memory.take(len(items))
        if blocks is None:
            blocks = [bytearray(1) for _ in items]
            DecodeInto.made += len(items)
        for item, block in zip(items, blocks, strict=True):
            block[0] = item[TASK_DATA_KEY]
            item[TASK_RESULT_KEY] = self._memory.lend(block)

    def end_pass(self) -> None:
        self._memory.end_pass()


@register("TestDecodeIntoAndRaise")
class DecodeIntoAndRaise(DecodeInto):
    """Raises after a batch of several, so that each of its items runs once more, alone."""

    def forward(self, items: Sequence[Item]) -> None:
        super().forward(items)
        if len(items) > 1:
            raise RuntimeError("not together")


@register("TestReadLoan")
class ReadLoan(ItemBackend):
    """Reads what was written, as whatever resizes pixels."""

    def process(self, data: Any) -> int:
        assert isinstance(data, Loan)
        return int(data.block[0])


@pytest.fixture(autouse=True)
def _count_from_zero() -> Iterator[None]:
    DecodeInto.made = 0
    yield
    DecodeInto.made = 0


@pytest.mark.parametrize(
    "backend",
    [
        "S[TestDecodeInto,TestReadLoan]",
        "S[TestDecodeIntoAndRaise,TestReadLoan]",
        "Torch[S[TestDecodeIntoAndRaise,TestReadLoan]]",
        # Several runs of the decoder before anything is read.
        "S[Range(range='1,8')[TestDecodeInto],TestReadLoan]",
        "S[Range(range='1,8')[TestDecodeIntoAndRaise],TestReadLoan]",
        "S[TestDecodeIntoAndRaise,(or)S[TestDecodeInto],TestReadLoan]",
    ],
)
def test_every_item_keeps_its_own_numbers(backend: str) -> None:
    numbers = [50, 100, 200, 3, 4, 5, 6]
    document = {"batching_timeout": 10_000, "node": {"backend": backend}}
    with pipe(document) as running:
        for turn in range(3):
            given = [number + turn for number in numbers]
            items = [{TASK_DATA_KEY: number} for number in given]
            running(items)
            assert [item[TASK_RESULT_KEY] for item in items] == given


def test_a_loan_that_leaves_the_node_is_not_written_again() -> None:
    with pipe({"node": {"backend": "TestDecodeInto"}}) as running:
        kept = []
        for number in range(8):
            item: dict[str, Any] = {TASK_DATA_KEY: number}
            running(item)
            kept.append(item[TASK_RESULT_KEY])
        assert [int(loan.block[0]) for loan in kept] == list(range(8))


def test_the_memory_of_a_pass_is_used_again_by_later_ones() -> None:
    with pipe({"node": {"backend": "S[TestDecodeInto,TestReadLoan]"}}) as running:
        for number in range(50):
            running({TASK_DATA_KEY: number})
    # The item of the batch before may be held a moment longer by the instance that ran it.
    assert DecodeInto.made <= 2
