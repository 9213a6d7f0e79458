"""Items and results in shared memory, between two maps of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.engine_process.slots import RemoteError, SlotError, SlotMemory
from pipeline.errors import DeadlinePassedError, NodeError
from service.handlers.outcomes import InvalidImageError

SLOT_BYTES = 256 * 1024


@pytest.fixture
def both_ends() -> Iterator[tuple[SlotMemory, SlotMemory]]:
    """The memory as the one process maps it, and as the other does."""
    ours = SlotMemory.create(3, SLOT_BYTES)
    theirs = SlotMemory(os.dup(ours.fd), ours.count, ours.slot_bytes)
    yield ours, theirs
    ours.close()
    theirs.close()


def test_slots_keep_apart(both_ends: tuple[SlotMemory, SlotMemory]) -> None:
    ours, theirs = both_ends
    data = [os.urandom(SLOT_BYTES - 1024), b"", b"abc"]
    for slot, one in enumerate(data):
        ours.put_item(slot, {"data": one}, 1.5, None)
    for slot, one in enumerate(data):
        assert theirs.item(slot) == ({"data": one}, 1.5, None)


@pytest.mark.parametrize("given", [bytearray(b"xyz"), memoryview(b"xyz")])
def test_bytes_like_data_arrives_as_a_view(
    both_ends: tuple[SlotMemory, SlotMemory], given: Any
) -> None:
    ours, theirs = both_ends
    ours.put_item(
        1, {"data": given, "color": "rgb", "request_size": 4, "unused": object()}, 3.0, 12.5
    )
    item, put_at_s, deadline_s = theirs.item(1)
    assert item == {"data": b"xyz", "color": "rgb", "request_size": 4}
    assert isinstance(item["data"], memoryview)
    assert (put_at_s, deadline_s) == (3.0, 12.5)
    ours.put_item(1, {"data": b"new"}, 3.0, None)
    assert item["data"] == b"new"
    del item


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_a_tensor_keeps_values_and_order(
    both_ends: tuple[SlotMemory, SlotMemory], order: torch.memory_format, dtype: torch.dtype
) -> None:
    ours, theirs = both_ends
    given = torch.randint(0, 256, (1, 3, 16, 20)).to(dtype).to(memory_format=order)
    ours.put_item(0, {"data": given}, 0.0, None)
    item, *_ = theirs.item(0)
    assert torch.equal(item["data"], given)
    assert item["data"].stride() == given.stride()
    del item


def test_a_thread_that_waits_at_a_slot_is_woken(
    both_ends: tuple[SlotMemory, SlotMemory],
) -> None:
    ours, theirs = both_ends
    ours.put_item(0, {"data": b"x"}, 0.0, None)
    ours.put_item(1, {"data": b"x"}, 0.0, None, is_waited_for=True)
    assert [theirs.is_waited_for(slot) for slot in (0, 1)] == [False, True]
    theirs.semaphore(1).post()
    assert [ours.semaphore(slot).take() for slot in (0, 1, 2)] == [False, True, False]


@pytest.mark.parametrize("data", [7, "text", np.zeros(3), b"x" * SLOT_BYTES])
def test_what_cannot_be_handed_over_is_refused(
    both_ends: tuple[SlotMemory, SlotMemory], data: Any
) -> None:
    with pytest.raises(SlotError, match=r"bytes or a tensor|--max-frame-bytes"):
        both_ends[0].put_item(0, {"data": data}, 0.0, None)


@pytest.mark.parametrize(
    "result",
    [
        torch.rand(1, 1000),
        [torch.rand(1, 4), torch.arange(6).reshape(1, 2, 3)],
        torch.rand(1, 7, dtype=torch.bfloat16),
        torch.rand(3).to(torch.float8_e5m2),
        torch.tensor(2.5),
        torch.rand(1, 4, requires_grad=True),
        torch.rand(1, 4, dtype=torch.bfloat16, requires_grad=True),
        torch.rand(2, dtype=torch.complex64).conj(),
    ],
)
def test_results_are_copies(both_ends: tuple[SlotMemory, SlotMemory], result: Any) -> None:
    ours, theirs = both_ends
    theirs.put_outcome(2, {"result": result}, None, {"m.queue": 1.5})
    got, error, times_ms = ours.outcome(2)
    theirs.put_outcome(2, {"result": torch.zeros(1, 1000)}, None, {})
    assert error is None
    assert times_ms == {"m.queue": 1.5}
    for one, wanted in zip(
        got if isinstance(got, list) else [got],
        result if isinstance(result, list) else [result],
        strict=True,
    ):
        assert one.tolist() == wanted.tolist()
        assert (one.dtype, one.shape) == (wanted.dtype, wanted.shape)
    assert isinstance(got, list) == isinstance(result, list)


@pytest.mark.parametrize(
    ("cause", "arrives_as"),
    [
        (InvalidImageError("no image"), InvalidImageError),
        (DeadlinePassedError("late"), DeadlinePassedError),
        (ValueError("odd"), RemoteError),
    ],
)
def test_errors_keep_their_words_and_what_clients_are_told(
    both_ends: tuple[SlotMemory, SlotMemory], cause: Exception, arrives_as: type[Exception]
) -> None:
    ours, theirs = both_ends
    theirs.put_outcome(0, {}, NodeError("decode", cause), {})
    _, error, _ = ours.outcome(0)
    assert error is not None
    assert error.node == "decode"
    assert type(error.cause) is arrives_as
    assert str(error.cause) == str(cause)
    theirs.put_outcome(0, {}, NodeError("decode", ValueError("x" * 10**7)), {})
    _, error, _ = ours.outcome(0)
    assert "xxx" in str(error)


def test_a_result_that_is_no_tensor_or_too_large_is_an_error(
    both_ends: tuple[SlotMemory, SlotMemory],
) -> None:
    ours, theirs = both_ends
    for result, words in (
        ("text", "gave no tensor, but str"),
        (
            torch.zeros(10**6),
            "4000000 bytes do not fit into a slot of 258048",
        ),
        (torch.zeros(2).to_sparse(), "the result cannot leave its process"),
    ):
        theirs.put_outcome(0, {"result": result}, None, {})
        _, error, _ = ours.outcome(0)
        assert error is not None
        assert words in str(error)


def test_an_item_and_an_outcome_are_not_taken_for_each_other(
    both_ends: tuple[SlotMemory, SlotMemory],
) -> None:
    ours, theirs = both_ends
    ours.put_item(0, {"data": b"abc"}, 1.0, None)
    with pytest.raises(SlotError, match="holds no outcome, but EncodedImage"):
        theirs.outcome(0)
    theirs.put_outcome(0, {"result": torch.zeros(2)}, None, {})
    with pytest.raises(SlotError, match="holds no item, but Results"):
        ours.item(0)
