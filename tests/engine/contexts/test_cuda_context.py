"""What surrounds the CUDA graphs and can run without a GPU."""

from __future__ import annotations

import pytest

from engine.contexts.cuda_context import graph_batch_sizes


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
