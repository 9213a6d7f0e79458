from __future__ import annotations

import pytest

from engine.cuda_context import graph_batch_sizes


@pytest.mark.parametrize(
    ("smallest", "largest", "sizes"),
    [
        (1, 1, [1]),
        (1, 4, [1, 2, 3, 4]),
        (1, 10, [1, 2, 3, 4, 6, 8, 10]),
        (3, 8, [3, 4, 6, 8]),
        (5, 5, [5]),
    ],
)
def test_graphs_are_captured_for_sizes_within_the_profile(
    smallest: int, largest: int, sizes: list[int]
) -> None:
    assert graph_batch_sizes(smallest, largest) == sizes


def test_no_batch_computes_more_than_half_as_many_rows_again() -> None:
    sizes = graph_batch_sizes(1, 64)
    for rows in range(1, 65):
        assert min(size for size in sizes if size >= rows) <= 1.5 * rows
