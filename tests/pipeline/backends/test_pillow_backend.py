"""PillowResizeMat against Pillow called directly."""

from __future__ import annotations

import re
import sys
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from pipeline import TASK_ERROR_KEY, TASK_RESULT_KEY, PipelineConfigError, pipe


def photo(height: int, width: int) -> np.ndarray:
    """Noise, the same every time."""
    generator = np.random.default_rng(height * 10_000 + width)
    return generator.integers(0, 256, (height, width, 3), dtype=np.uint8)


def run_one(backend: str, data: Any, **settings: Any) -> dict[str, Any]:
    item = {"data": data}
    with pipe({"node": {"backend": backend, **settings}}) as run:
        run(item)
    return item


@pytest.mark.parametrize("target", [(24, 40), (1, 1), (224, 1), (1, 224), (61, 83)])
@pytest.mark.parametrize("size", [(1, 1), (1, 997), (997, 1), (96, 160), (24, 40), (61, 83)])
def test_it_is_pillows_bilinear_resize(size: tuple[int, int], target: tuple[int, int]) -> None:
    image = photo(*size)
    # Channel by channel, so that nothing depends on how the backend hands over three of them.
    expected = np.stack(
        [
            np.array(
                Image.fromarray(np.ascontiguousarray(image[:, :, channel])).resize(
                    (target[1], target[0]), Image.Resampling.BILINEAR
                )
            )
            for channel in range(3)
        ],
        axis=2,
    )
    result = run_one("PillowResizeMat", image, resize_h=target[0], resize_w=target[1])["result"]
    assert np.array_equal(result, expected)
    assert result.flags.writeable


@pytest.mark.parametrize("size", [(1, 1), (1, 97), (97, 1), (20, 30), (61, 83)])
def test_of_a_tensor_it_makes_the_same_in_float32(size: tuple[int, int]) -> None:
    image = photo(*size)
    chain = "S[Mat2Tensor,PillowResizeTensor]"
    matrix = run_one("PillowResizeMat", image, resize_h=20, resize_w=30)[TASK_RESULT_KEY]
    for layout in ("nchw", "hwc"):
        settings = {"resize_h": 20, "resize_w": 30, "data_format": layout}
        result = run_one(chain, image, **settings)[TASK_RESULT_KEY]
        assert (tuple(result.shape), result.dtype) == ((1, 3, 20, 30), torch.float32)
        assert np.array_equal(result[0].permute(1, 2, 0).numpy(), matrix)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("text", "PillowResizeTensor takes a tensor"),
        (torch.zeros((2, 3, 4, 4), dtype=torch.uint8), "PillowResizeTensor takes one image"),
        (torch.zeros((1, 3, 4, 4)), "expected a matrix of uint8"),
        (torch.zeros((1, 1, 4, 4), dtype=torch.uint8), r"of shape \(height, width, 3\)"),
    ],
)
def test_what_is_no_image_tensor_fails_that_item_alone(data: Any, message: str) -> None:
    items = [{"data": data}, {"data": torch.zeros((1, 3, 4, 4), dtype=torch.uint8)}]
    with pipe({"node": {"backend": "PillowResizeTensor", "resize_h": 2, "resize_w": 2}}) as run:
        run(items)
    assert re.search(message, str(items[0][TASK_ERROR_KEY]))
    assert TASK_RESULT_KEY in items[1]


def test_it_differs_from_resize_mat_where_images_become_smaller() -> None:
    image = photo(96, 160)
    result = run_one("PillowResizeMat", image, resize_h=24, resize_w=40)["result"]
    assert not np.array_equal(result, cv2.resize(image, (40, 24)))


def test_it_takes_a_part_of_a_matrix_and_its_result_becomes_a_tensor() -> None:
    image = photo(61, 83)
    chain = "S[CropMat,PillowResizeMat,Mat2Tensor]"
    corners = {"x1": 5, "y1": 7, "x2": 60, "y2": 61}
    tensor = run_one(chain, image, resize_h=20, resize_w=30, **corners)[TASK_RESULT_KEY]
    part = Image.fromarray(np.ascontiguousarray(image[7:61, 5:60]))
    expected = np.array(part.resize((30, 20), Image.Resampling.BILINEAR))
    assert np.array_equal(tensor[0].permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize("data", [b"bytes", np.zeros((4, 4, 3), np.float32), np.zeros((4, 4))])
def test_what_is_no_matrix_of_bytes_fails_that_item_alone(data: Any) -> None:
    items = [{"data": data}, {"data": photo(4, 4)}]
    with pipe({"node": {"backend": "PillowResizeMat", "resize_h": 2, "resize_w": 2}}) as run:
        run(items)
    assert "expected a matrix" in str(items[0][TASK_ERROR_KEY])
    assert items[1][TASK_RESULT_KEY].shape == (2, 2, 3)


def test_without_a_size_it_is_refused_at_load() -> None:
    with pytest.raises(PipelineConfigError, match="PillowResizeMat needs resize_h and resize_w"):
        pipe({"node": {"backend": "PillowResizeMat", "resize_w": 2}})


def test_without_pillow_it_is_refused_at_load_and_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(PipelineConfigError, match=r"pip install 'thriftpipe\[pillow\]'"):
        pipe({"node": {"backend": "PillowResizeMat", "resize_h": 2, "resize_w": 2}})
