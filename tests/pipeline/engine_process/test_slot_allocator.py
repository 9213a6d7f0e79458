"""Slots that are lent and freed: which one comes next, and what memory they keep."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from pipeline.engine_process.slot_allocator import SlotAllocator
from pipeline.engine_process.slots import SlotMemory

MIB = 2**20
SLOTS = 8
MAX_BYTES = 3 * MIB
TIMEOUT_S = 30


@pytest.fixture
def memory() -> Iterator[SlotMemory]:
    made = SlotMemory.create(SLOTS + 1, 4 * MIB)
    yield made
    made.close()


@pytest.fixture
def free(memory: SlotMemory) -> SlotAllocator:
    return SlotAllocator(memory, SLOTS, MAX_BYTES)


def taken_bytes(memory: SlotMemory) -> int:
    """What the kernel has given out for the slots."""
    return os.fstat(memory.fd).st_blocks * 512


def filled(memory: SlotMemory, free: SlotAllocator, size_bytes: int) -> int:
    slot = free.take(size_bytes, TIMEOUT_S)
    assert slot is not None
    memory.put_item(slot, {"data": os.urandom(size_bytes)}, 0.0, None)
    return slot


def test_the_last_freed_slot_is_lent_first(memory: SlotMemory, free: SlotAllocator) -> None:
    first, second, third = (filled(memory, free, 1000) for _ in range(3))
    for slot in (first, third, second):
        free.put(slot)
    assert [free.take(1000, 0) for _ in range(3)] == [second, third, first]


def test_items_that_have_gone_leave_little_behind(memory: SlotMemory, free: SlotAllocator) -> None:
    """However many slots they have passed through, and however they differ in size."""
    headers_bytes = taken_bytes(memory) + SLOTS * mmap.PAGESIZE
    for size_bytes in (MAX_BYTES // SLOTS, MAX_BYTES // 2, 10, MAX_BYTES // SLOTS):
        lent = [
            filled(memory, free, size_bytes) for _ in range(min(SLOTS, MAX_BYTES // size_bytes))
        ]
        assert taken_bytes(memory) <= headers_bytes + MAX_BYTES * 9 // 8
        for slot in lent:
            free.put(slot)
        assert taken_bytes(memory) <= headers_bytes + MAX_BYTES // 8


def test_a_slot_without_memory_can_be_used_again(memory: SlotMemory, free: SlotAllocator) -> None:
    other = SlotMemory(os.dup(memory.fd), memory.count, memory.slot_bytes)
    for size_bytes in (MIB, 100, 3 * MIB, 3):
        slot = filled(memory, free, size_bytes)
        memory.semaphore(slot).post()
        assert other.semaphore(slot).take()
        item, *_ = other.item(slot)
        assert len(item["data"]) == size_bytes
        del item
        memory.discard(slot)
        free.put(slot)
    other.close()


def test_items_wait_for_room_and_a_larger_one_goes_alone(
    memory: SlotMemory, free: SlotAllocator
) -> None:
    first = filled(memory, free, MAX_BYTES - 10)
    second = free.take(10, 0)
    assert second is not None
    assert free.take(1, 0) is None
    with ThreadPoolExecutor(1) as pool:
        larger = pool.submit(free.take, MAX_BYTES + 1, TIMEOUT_S)
        free.put(first)
        assert not larger.done()
        free.put(second)
        assert larger.result(TIMEOUT_S) is not None
    assert free.take(1, 0) is None


def test_threads_that_wait_are_let_go_at_the_end(free: SlotAllocator) -> None:
    lent = [free.take(1, 0) for _ in range(SLOTS)]
    assert None not in lent
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(free.take, 1, None) for _ in range(3)]
        free.close()
        assert [one.result(TIMEOUT_S) for one in waiting] == [0, 0, 0]
    free.put(lent[0] or 0)
