"""The operators that keep the aspect ratio, against OpenCV and fractions computed here."""

from __future__ import annotations

import math
import re
from fractions import Fraction
from typing import Any

import cv2
import numpy as np
import pytest

from pipeline import TASK_ERROR_KEY, TASK_RESULT_KEY, PipelineConfigError, pipe

# Height and width: a pixel, very wide, very tall, a multiple of the target, the target, odd ones.
SIZES = [(1, 1), (1, 997), (997, 1), (96, 160), (48, 80), (24, 40), (61, 83), (83, 61), (7, 1000)]
BOXES = [(48, 80), (80, 48), (33, 33), (1, 1), (5, 640)]


def photo(height: int, width: int, dtype: Any = np.uint8) -> np.ndarray:
    """Noise, the same every time."""
    levels = np.random.default_rng(height * 10_000 + width).integers(0, 256, (height, width, 3))
    return levels.astype(dtype)


def run_one(backend: str, data: Any, **settings: Any) -> dict[str, Any]:
    item = {"data": data}
    with pipe({"node": {"backend": backend, **settings}}) as run:
        run(item)
    return item


def nearest(value: Fraction) -> int:
    return max(1, math.floor(value + Fraction(1, 2)))


def fitted(size: tuple[int, int], box: tuple[int, int], rounded: Any) -> tuple[int, int]:
    """Height and width after scaling by the smaller of the two ratios, as an exact fraction."""
    scale = min(Fraction(box[0], size[0]), Fraction(box[1], size[1]))
    return rounded(size[0] * scale), rounded(size[1] * scale)


def resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return np.asarray(cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_LINEAR))


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_letter_boxes_are_opencvs_resize_on_a_canvas(
    dtype: Any, size: tuple[int, int], box: tuple[int, int]
) -> None:
    image = photo(*size, dtype)
    height, width = fitted(size, box, nearest)
    offsets = {
        "LetterBoxMat": ((box[1] - width) // 2, (box[0] - height) // 2),
        "TopLeftResizeMat": (0, 0),
    }
    for backend, (left, above) in offsets.items():
        canvas = np.empty((*box, 3), dtype)
        canvas[:] = (10, 128, 255)
        canvas[above : above + height, left : left + width] = resized(image, (height, width))
        item = run_one(backend, image, resize_h=box[0], resize_w=box[1], pad_val="10,128,255")
        assert np.array_equal(item[TASK_RESULT_KEY], canvas)
        assert item[TASK_RESULT_KEY].dtype == dtype
        assert item["scale"] == min(box[0] / size[0], box[1] / size[1])
        assert item["offset"] == (left, above)


@pytest.mark.parametrize(
    ("given", "levels"),
    [
        (None, (0, 0, 0)),
        (114, (114, 114, 114)),
        ("114", (114, 114, 114)),
        ("1, 2, 3", (1, 2, 3)),
        ([1, 2, 3], (1, 2, 3)),
    ],
)
@pytest.mark.parametrize("backend", ["LetterBoxMat", "TopLeftResizeMat"])
def test_pad_val_is_black_one_level_or_three(
    backend: str, given: Any, levels: tuple[int, int, int]
) -> None:
    settings = {} if given is None else {"pad_val": given}
    result = run_one(backend, photo(1, 9), resize_h=9, resize_w=9, **settings)[TASK_RESULT_KEY]
    assert result[-1, -1].tolist() == list(levels)


def test_scale_and_offset_take_a_point_back() -> None:
    image = np.zeros((30, 50, 3), np.uint8)
    image[20:22, 40:42] = 255
    item = run_one("LetterBoxMat", image, resize_h=100, resize_w=100)
    rows, columns = np.nonzero(item[TASK_RESULT_KEY][:, :, 0] > 250)
    (left, above), scale = item["offset"], item["scale"]
    assert (columns.mean() + 0.5 - left) / scale == pytest.approx(41)
    assert (rows.mean() + 0.5 - above) / scale == pytest.approx(21)


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_fix_ratio_resize_mat_rounds_the_shorter_side_up(
    dtype: Any, size: tuple[int, int], box: tuple[int, int]
) -> None:
    image = photo(*size, dtype)
    height, width = fitted(size, box, math.ceil)
    item = run_one("FixRatioResizeMat", image, max_h=box[0], max_w=box[1])
    assert np.array_equal(item[TASK_RESULT_KEY], resized(image, (height, width)))
    back = item["inverse_trans"](width, height)
    assert back == pytest.approx((size[1], size[0]))


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("size", SIZES)
def test_resize_pad_mat_is_opencvs_resize_with_a_border(
    size: tuple[int, int], box: tuple[int, int]
) -> None:
    image = photo(*size)
    height, width = fitted(size, box, nearest)
    canvas = np.full((*box, 3), 114, np.uint8)
    canvas[:height, :width] = resized(image, (height, width))
    item = run_one("ResizePadMat", image, max_h=box[0], max_w=box[1], pad_value=114)
    assert np.array_equal(item[TASK_RESULT_KEY], canvas)
    assert item["inverse_trans"](width, height) == pytest.approx((size[1], size[0]))


def test_resize_pad_mat_pads_with_black_unless_it_is_told() -> None:
    result = run_one("ResizePadMat", photo(1, 9), max_h=9, max_w=9)[TASK_RESULT_KEY]
    assert not result[1:].any()


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("size", SIZES)
def test_resize_center_pad_mat_has_the_image_in_the_middle(
    size: tuple[int, int], box: tuple[int, int]
) -> None:
    image = photo(*size)
    height, width = fitted(size, box, nearest)
    above, left = (box[0] - height) // 2, (box[1] - width) // 2
    canvas = np.full((*box, 3), 114, np.uint8)
    canvas[above : above + height, left : left + width] = resized(image, (height, width))
    item = run_one("ResizeCenterPadMat", image, max_h=box[0], max_w=box[1], pad_value=114)
    assert np.array_equal(item[TASK_RESULT_KEY], canvas)
    back = item["inverse_trans"]
    assert back(left, above) == (0, 0)
    # A point beside the image is brought to its edge.
    assert back(-1000, 1000) == (0, size[0] - 1)


@pytest.mark.parametrize("backend", ["ResizePadMat", "FixRatioResizeMat"])
def test_a_matrix_that_has_the_size_is_handed_on(backend: str) -> None:
    image = photo(48, 80)
    item = run_one(backend, image, max_h=48, max_w=80)
    assert item[TASK_RESULT_KEY] is image
    assert item["inverse_trans"](3, 4) == (3, 4)


def test_padded_images_go_on_as_tensors_of_one_shape() -> None:
    chain = {"backend": "S[LetterBoxMat,cvtColorMat,Mat2Tensor]", "resize_h": 32, "resize_w": 48}
    items = [{"data": photo(*size)} for size in SIZES]
    with pipe({"node": chain}) as run:
        run(items)
    assert {tuple(item["result"].shape) for item in items} == {(1, 3, 32, 48)}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backend": "LetterBoxMat"}, "LetterBoxMat needs resize_h and resize_w, in pixels"),
        ({"backend": "TopLeftResizeMat", "resize_h": 3}, "TopLeftResizeMat needs resize_h and"),
        ({"backend": "ResizePadMat", "max_w": 3}, "ResizePadMat needs max_h and max_w, in pixels"),
        ({"backend": "FixRatioResizeMat"}, "FixRatioResizeMat needs max_h and max_w, in pixels"),
        ({"backend": "FixRatioResizeMat", "max_h": 0}, "max_h = 0: expected a height in pixels"),
        ({"backend": "FixRatioResizeMat", "max_h": 8193}, "a height in pixels, 1 to 8192"),
        ({"backend": "LetterBoxMat", "pad_val": 256}, "pad_val = 256: expected a level from 0"),
        ({"backend": "LetterBoxMat", "pad_val": "1,2"}, "pad_val = '1,2': expected a level"),
        ({"backend": "LetterBoxMat", "pad_val": []}, r"pad_val = \[\]: expected a level"),
        ({"backend": "LetterBoxMat", "pad_val": 1.5}, "pad_val = 1.5: expected a level"),
        ({"backend": "ResizePadMat", "pad_value": -1}, "pad_value = -1: expected a grey level"),
        ({"backend": "LetterBoxMat", "pad_vale": 1}, "pad_vale.*did you mean 'pad_val"),
    ],
)
def test_settings_that_cannot_work_are_refused_at_load(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(PipelineConfigError, match=message):
        pipe({"node": settings})


@pytest.mark.parametrize(
    "backend", ["LetterBoxMat", "TopLeftResizeMat", "FixRatioResizeMat", "ResizePadMat"]
)
@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("text", "expected a matrix, such as DecodeMat gives, got str"),
        (np.zeros((4, 4), np.uint8), r"of shape \(height, width, 3\), got uint8 \(4, 4\)"),
        (np.zeros((4, 4, 3)), r"expected a matrix of uint8.* got float64"),
    ],
)
def test_what_is_no_matrix_fails_that_item_alone(backend: str, data: Any, message: str) -> None:
    globals_ = {"resize_h": 8, "resize_w": 8, "max_h": 8, "max_w": 8}
    items = [{"data": data}, {"data": photo(4, 4)}]
    with pipe({**globals_, "node": {"backend": backend}}) as run:
        run(items)
    assert re.search(message, str(items[0][TASK_ERROR_KEY]))
    assert not {"scale", "offset", "inverse_trans", TASK_RESULT_KEY} & items[0].keys()
    assert TASK_RESULT_KEY in items[1]


def test_resize_pad_mat_refuses_floats() -> None:
    item = run_one("ResizePadMat", photo(4, 4, np.float32), max_h=8, max_w=8)
    assert "expected a matrix of uint8 and of shape" in str(item[TASK_ERROR_KEY])
