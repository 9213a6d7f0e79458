"""What surrounds the CUDA graphs and can run without a GPU."""

from __future__ import annotations

import pytest
import torch

from engine.contexts.cuda_context import graph_batch_sizes, stage_rows
from engine.tensor_spec import TensorSpec


@pytest.mark.parametrize(
    ("smallest", "largest", "sizes"),
    [
        (1, 1, [1]),
        (1, 4, [1, 2, 4]),
        (1, 10, [1, 2, 4, 8, 10]),
        (1, 32, [1, 2, 4, 8, 16, 24, 32]),
        (3, 8, [3, 4, 8]),
        (5, 5, [5]),
    ],
)
def test_graphs_are_captured_for_sizes_within_the_profile(
    smallest: int, largest: int, sizes: list[int]
) -> None:
    assert graph_batch_sizes(smallest, largest) == sizes


def test_no_large_batch_computes_more_than_half_as_many_rows_again() -> None:
    sizes = graph_batch_sizes(1, 64)
    for rows in range(9, 65):
        assert min(size for size in sizes if size >= rows) <= 2 * rows
        if rows > 16:
            assert min(size for size in sizes if size >= rows) <= 1.5 * rows


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("given_order", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("side", [7, 400])
def test_rows_are_staged_in_the_order_of_the_buffer(
    channels_last: bool, given_order: torch.memory_format, dtype: torch.dtype, side: int
) -> None:
    """Whatever the order of a row and the size that decides how it is copied."""
    spec = TensorSpec("input", dtype, (None, 3, side, side), channels_last)
    rows = [
        torch.randint(0, 256, (count, 3, side, side)).to(dtype).to(memory_format=given_order)
        for count in (1, 2, 1)
    ]
    buffer = spec.allocate(5).zero_()
    stage_rows([(row,) for row in rows], [buffer], [spec])
    assert torch.equal(buffer[:4], torch.cat(rows))
    assert not buffer[4].any()


def test_rows_of_another_type_are_converted() -> None:
    spec = TensorSpec("input", torch.float32, (None, 2))
    buffer = spec.allocate(1)
    stage_rows([(torch.tensor([[3, 4]], dtype=torch.uint8),)], [buffer], [spec])
    assert buffer.tolist() == [[3.0, 4.0]]
