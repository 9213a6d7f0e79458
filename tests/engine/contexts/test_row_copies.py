"""Rows that are read where they lie, and rows that are copied."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from engine.contexts.row_copies import in_place, stage_rows
from engine.tensor_spec import TensorSpec

PIXELS = TensorSpec("input", torch.uint8, (None, 3, 5, 7), channels_last=True)
NUMBERS = TensorSpec("input", torch.float32, (None, 4))


def test_rows_in_the_order_of_the_graph_are_read_where_they_lie() -> None:
    pixels = torch.arange(2 * 5 * 7 * 3, dtype=torch.uint8).reshape(2, 5, 7, 3)
    array = in_place(pixels.permute(0, 3, 1, 2), PIXELS)
    assert array is not None
    assert array.shape == (2, 5, 7, 3)
    assert array.flags.c_contiguous
    assert np.array_equal(array, pixels.numpy())
    pixels[1, 4, 6, 2] = 255
    assert array[1, 4, 6, 2] == 255


@pytest.mark.parametrize(
    ("rows", "spec"),
    [
        pytest.param(torch.zeros(1, 3, 5, 7, dtype=torch.uint8), PIXELS, id="channels first"),
        pytest.param(
            torch.zeros(1, 5, 14, 3).byte()[:, :, ::2].permute(0, 3, 1, 2), PIXELS, id="gaps"
        ),
        pytest.param(torch.zeros(1, 4, dtype=torch.float64), NUMBERS, id="another type"),
        pytest.param(torch.zeros(1, 4, requires_grad=True), NUMBERS, id="with a gradient"),
        pytest.param(torch.zeros(1, 4, dtype=torch.cfloat).conj().imag, NUMBERS, id="negated view"),
        pytest.param(torch.zeros(1, 4).to_sparse(), NUMBERS, id="sparse"),
        pytest.param(torch.zeros(1, 4, device="meta"), NUMBERS, id="on another device"),
        pytest.param(
            torch.zeros(17, dtype=torch.uint8)[1:].view(torch.uint8).numpy().view(np.float32),
            NUMBERS,
            id="not aligned",
        ),
        pytest.param(
            torch.zeros(1, 4, dtype=torch.bfloat16),
            TensorSpec("input", torch.bfloat16, (None, 4)),
            id="unknown to NumPy",
        ),
    ],
)
def test_all_other_rows_are_not(rows: torch.Tensor | np.ndarray, spec: TensorSpec) -> None:
    if isinstance(rows, np.ndarray):
        rows = torch.from_numpy(rows)[None]
    assert in_place(rows, spec) is None


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


def test_a_negated_view_is_staged_as_the_numbers_that_it_has() -> None:
    numbers = torch.complex(torch.zeros(1, 4), torch.arange(4.0)[None]).conj().imag
    buffer = NUMBERS.allocate(1)
    stage_rows([(numbers,)], [buffer], [NUMBERS])
    assert buffer.tolist() == [[0.0, -1.0, -2.0, -3.0]]
