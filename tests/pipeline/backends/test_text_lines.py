"""The operators for lines of text, against OpenCV and fractions computed here."""

from __future__ import annotations

import math
import re
from fractions import Fraction
from typing import Any

import cv2
import numpy as np
import pytest

from pipeline import TASK_ERROR_KEY, TASK_RESULT_KEY, PipelineConfigError, pipe

# Height and width: a pixel, a column, lines that are longer than the limit, and odd ones.
SIZES = [(1, 1), (1, 997), (997, 1), (24, 40), (61, 83), (83, 61), (7, 1000), (20, 100)]
HEIGHT, MOST_WIDTH = 32, 320
SETTINGS = {"resize_h": HEIGHT, "max_w": MOST_WIDTH}


def photo(height: int, width: int, dtype: Any = np.uint8) -> np.ndarray:
    """Noise, the same every time."""
    levels = np.random.default_rng(height * 10_000 + width).integers(0, 256, (height, width, 3))
    return levels.astype(dtype)


def fitted(image: np.ndarray, most_width: int, level: int = 0) -> np.ndarray:
    """The image at the left of a canvas, as high as that."""
    width = min(most_width, math.ceil(Fraction(HEIGHT * image.shape[1], image.shape[0])))
    canvas = np.full((HEIGHT, most_width, 3), level, image.dtype)
    canvas[:, :width] = cv2.resize(image, (width, HEIGHT), interpolation=cv2.INTER_LINEAR)
    return canvas


def needed_width(sizes: list[tuple[int, int]], align: int) -> int:
    """The width of the longest, rounded down and then up to a multiple."""
    longest = max(math.floor(Fraction(HEIGHT * width, height)) for height, width in sizes)
    return min(MOST_WIDTH, align * math.ceil(Fraction(longest, align)))


@pytest.mark.parametrize("size", SIZES)
def test_fix_h_resize_pad_mat_fills_up_the_width(size: tuple[int, int]) -> None:
    item = {"data": photo(*size)}
    with pipe({"line": {"backend": "FixHResizePadMat", **SETTINGS}}) as run:
        run(item)
    assert np.array_equal(item[TASK_RESULT_KEY], fitted(photo(*size), MOST_WIDTH))


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_the_dynamic_one_takes_the_size_from_the_item(dtype: Any) -> None:
    widths = (1, 7, "64", 320)
    items = [
        {"data": photo(*size, dtype), "resize_h": HEIGHT, "max_w": width}
        for size in SIZES
        for width in widths
    ]
    # The node's own size is for other backends of a file that has it as a global.
    node = {"backend": "DynamicFixHResizePadMat", "pad_value": 127, "resize_h": 5, "max_w": 5}
    with pipe({"line": node}) as run:
        run(items)
    for item in items:
        expected = fitted(item["data"], int(item["max_w"]), 127)
        assert np.array_equal(item[TASK_RESULT_KEY], expected)
        assert item[TASK_RESULT_KEY].dtype == dtype


@pytest.mark.parametrize(
    "given", [{}, {"resize_h": 32}, {"resize_h": 32, "max_w": 0}, {"resize_h": "x", "max_w": 9}]
)
def test_the_dynamic_one_says_what_an_item_lacks(given: dict[str, Any]) -> None:
    items = [{"data": photo(4, 9), **given}, {"data": photo(4, 9), "resize_h": 4, "max_w": 9}]
    with pipe({"line": {"backend": "DynamicFixHResizePadMat"}}) as run:
        run(items)
    message = "DynamicFixHResizePadMat needs resize_h and max_w in the item, pixels from 1 to 8192"
    assert message in str(items[0][TASK_ERROR_KEY])
    assert TASK_RESULT_KEY in items[1]


@pytest.mark.parametrize("align", [1, 16, 32, 64, 320])
@pytest.mark.parametrize(
    ("backend", "key"), [("BatchFixHLimitW", "max_w"), ("AlignMat", "resize_w")]
)
def test_a_batch_has_one_width(backend: str, key: str, align: int) -> None:
    for sizes in (SIZES, [(24, 40), (61, 83)], [(997, 1)], [(64, 129)]):
        items = [{"data": photo(*size)} for size in sizes]
        expression = f"Range(range='{len(sizes)},{len(sizes)}')[{backend}]"
        node = {"backend": expression, **SETTINGS, "align": align, "max": 8}
        # Long enough for all to be there, however slow the machine.
        with pipe({"line": {**node, "batching_timeout": 60_000}}) as run:
            run(items)
        for item in items:
            assert item[TASK_RESULT_KEY] is item["data"]
            assert item["resize_h"] == HEIGHT
            assert item[key] == needed_width(sizes, align)


def test_a_batch_has_no_more_items_than_max() -> None:
    items = [{"data": photo(8, 8 * (1 + number % 5))} for number in range(40)]
    alone = {"backend": "BatchFixHLimitW", **SETTINGS, "align": 1}
    with pipe({"line": alone}) as run:
        run(items)
    # Without max each is a batch of its own.
    assert [item["max_w"] for item in items] == [32 * (1 + number % 5) for number in range(40)]


def test_lines_become_one_tensor_a_batch() -> None:
    sizes = [(10, 20), (10, 55), (12, 18)]
    items = [{"data": photo(*size), "node_name": "line"} for size in sizes]
    document = {
        "line": {
            "backend": "S[Range(range='3,3')[BatchFixHLimitW],Jump]",
            "jump": "|resize",
            "BatchFixHLimitW::max": 3,
            "batching_timeout": 60_000,
            **SETTINGS,
        },
        "resize": {"backend": "S[DynamicFixHResizePadMat,Mat2Tensor]"},
    }
    with pipe(document) as run:
        run(items)
    for item, size in zip(items, sizes, strict=True):
        assert item["max_w"] == 192
        result = item[TASK_RESULT_KEY][0].numpy().transpose(1, 2, 0)
        assert np.array_equal(result, fitted(photo(*size), 192))


@pytest.mark.parametrize("backend", ["BatchFixHLimitW", "AlignMat", "FixHResizePadMat"])
@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("text", "expected a matrix, such as DecodeMat gives, got str"),
        (np.zeros((4, 4), np.uint8), r"of shape \(height, width, 3\), got uint8 \(4, 4\)"),
    ],
)
def test_what_is_no_matrix_fails_alone(backend: str, data: Any, message: str) -> None:
    items = [{"data": data}, {"data": photo(4, 4)}]
    node = {"backend": f"Range(range='2,2')[{backend}]", **SETTINGS, "batching_timeout": 60_000}
    with pipe({"line": {**node, "max": 2}}) as run:
        run(items)
    assert re.search(message, str(items[0][TASK_ERROR_KEY]))
    assert "max_w" not in items[0]
    assert TASK_RESULT_KEY in items[1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backend": "FixHResizePadMat"}, "FixHResizePadMat needs resize_h and max_w, in pixels"),
        ({"backend": "BatchFixHLimitW"}, "BatchFixHLimitW needs resize_h and max_w, in pixels"),
        ({"backend": "AlignMat", "max_w": 32}, "AlignMat needs resize_h and max_w, in pixels"),
        (
            {"backend": "AlignMat", "resize_h": 32, "max_w": 100},
            "AlignMat: max_w = 100 is no multiple of align = 32",
        ),
        (
            {"backend": "BatchFixHLimitW", "resize_h": 32, "max_w": 320, "align": 33},
            "BatchFixHLimitW: max_w = 320 is no multiple of align = 33",
        ),
        ({"backend": "AlignMat", "align": 0}, "align = 0: expected pixels, 1 to 8192"),
        (
            {"backend": "BatchFixHLimitW", "BatchFixHLimitW::max": 0},
            r"BatchFixHLimitW\(...\): max = '0': expected rows",
        ),
    ],
)
def test_settings_that_cannot_work_are_refused_at_load(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(PipelineConfigError, match=message):
        pipe({"line": settings})
