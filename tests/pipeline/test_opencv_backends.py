"""The CPU operators against OpenCV called directly."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
import torch

from pipeline import TASK_ERROR_KEY, TASK_RESULT_KEY, PipelineConfigError, pipe
from pipeline.errors import NodeError
from service.handler import InvalidImageError


def photo(height: int = 61, width: int = 83) -> np.ndarray:
    """A smooth picture with detail, the same every time."""
    rows, columns = np.mgrid[0:height, 0:width]
    channels = [rows * 3 + columns, rows * columns % 251, 200 - rows + columns % 7]
    return np.stack(channels, axis=2).astype(np.uint8)


def jpeg(image: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", image)[1].tobytes()


def run_one(expression: str, data: Any, **settings: Any) -> dict[str, Any]:
    item = {"data": data}
    with pipe({"node": {"backend": expression, **settings}}) as run:
        run(item)
    return item


def test_decode_mat_gives_bgr_as_opencv_does() -> None:
    data = jpeg(photo())
    expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert np.array_equal(run_one("DecodeMat", data)[TASK_RESULT_KEY], expected)


def test_resize_mat_is_opencvs_bilinear_resize() -> None:
    image = photo()
    expected = cv2.resize(image, (40, 24), interpolation=cv2.INTER_LINEAR)
    result = run_one("ResizeMat", image, resize_h=24, resize_w=40)[TASK_RESULT_KEY]
    assert np.array_equal(result, expected)


def test_cvt_color_mat_swaps_red_and_blue_under_both_spellings() -> None:
    image = photo()
    for name in ("cvtColorMat", "CvtColorMat"):
        assert np.array_equal(run_one(name, image, color="RGB")["result"], image[:, :, ::-1])
    assert np.array_equal(run_one("cvtColorMat", image, color="bgr")["result"], image)


def test_mat2tensor_gives_one_row_in_nchw_with_the_memory_of_the_matrix() -> None:
    image = photo()
    tensor = run_one("Mat2Tensor", image)[TASK_RESULT_KEY]
    assert tensor.shape == (1, 3, 61, 83)
    assert tensor.dtype == torch.uint8
    assert np.array_equal(tensor[0].permute(1, 2, 0).numpy(), image)
    assert tensor.is_contiguous(memory_format=torch.channels_last)


def test_the_whole_chain_equals_opencv_to_the_bit() -> None:
    data = jpeg(photo(97, 203))
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    expected = cv2.cvtColor(cv2.resize(decoded, (32, 32)), cv2.COLOR_BGR2RGB)
    chain = "Torch[Sequential[DecodeMat,ResizeMat,cvtColorMat,Mat2Tensor]]"
    tensor = run_one(chain, data, resize_h=32, resize_w=32, color="rgb")[TASK_RESULT_KEY]
    assert np.array_equal(tensor[0].permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize(
    "data",
    [b"", b"no image", jpeg(photo())[:-200], "text", None],
    ids=["empty", "not-an-image", "truncated", "text", "none"],
)
def test_what_is_no_image_fails_with_an_invalid_image_error(data: Any) -> None:
    item = run_one("DecodeMat", data)
    error = item[TASK_ERROR_KEY]
    assert isinstance(error, NodeError)
    assert isinstance(error.cause, InvalidImageError)
    assert TASK_RESULT_KEY not in item


def test_resize_mat_without_a_size_is_refused_at_load() -> None:
    with pytest.raises(PipelineConfigError, match="ResizeMat needs resize_h and resize_w"):
        pipe({"node": {"backend": "ResizeMat", "resize_h": 3}})
