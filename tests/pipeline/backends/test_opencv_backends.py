"""The CPU operators against OpenCV called directly."""

from __future__ import annotations

import re
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from pipeline import TASK_ERROR_KEY, TASK_RESULT_KEY, PipelineConfigError, pipe
from pipeline.errors import NodeError
from service.handlers.outcomes import InvalidImageError


def photo(height: int = 61, width: int = 83) -> np.ndarray:
    """A smooth picture with detail, the same every time."""
    rows, columns = np.mgrid[0:height, 0:width]
    channels = [rows * 3 + columns, rows * columns % 251, 200 - rows + columns % 7]
    return np.stack(channels, axis=2).astype(np.uint8)


def jpeg(image: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", image)[1].tobytes()


def run_one(
    expression: str, data: Any, item: dict[str, Any] | None = None, **settings: Any
) -> dict[str, Any]:
    item = {"data": data, **(item or {})}
    with pipe({"node": {"backend": expression, **settings}}) as run:
        run(item)
    return item


def test_decode_mat_gives_bgr_as_opencv_does() -> None:
    data = jpeg(photo())
    expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert np.array_equal(run_one("DecodeMat", data)[TASK_RESULT_KEY], expected)


@pytest.mark.parametrize(
    ("sides", "flag"),
    [
        ((40, 24), cv2.IMREAD_REDUCED_COLOR_2),
        ((41, 24), cv2.IMREAD_COLOR),
        ((20, 10), cv2.IMREAD_REDUCED_COLOR_4),
        ((10, 10), cv2.IMREAD_REDUCED_COLOR_8),
        ((1, 1), cv2.IMREAD_REDUCED_COLOR_8),
    ],
)
def test_a_jpeg_is_decoded_no_larger_than_resizing_needs(sides: tuple[int, int], flag: int) -> None:
    """Of 81 x 97 pixels; a picture of another format is decoded whole."""
    height, width = sides
    image = photo(81, 97)
    settings = {"resize_h": height, "resize_w": width, "reduced": True}
    for suffix, expected_flag in ((".jpg", flag), (".png", cv2.IMREAD_COLOR)):
        data = cv2.imencode(suffix, image)[1]
        expected = cv2.resize(cv2.imdecode(data, expected_flag), (width, height))
        item = run_one("S[DecodeMat,ResizeMat]", data.tobytes(), **settings)
        assert np.array_equal(item[TASK_RESULT_KEY], expected)


def test_reduced_decoding_needs_the_size_that_is_to_come_of_it() -> None:
    with pytest.raises(PipelineConfigError, match=r"reduced = true needs resize_h and resize_w"):
        run_one("DecodeMat", b"", reduced=True)


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


def test_mat2tensor_gives_hwc_and_tells_the_item_which_it_is() -> None:
    image = photo()
    item = run_one("Mat2Tensor", image, data_format="HWC", device="cpu")
    assert item[TASK_RESULT_KEY].shape == (61, 83, 3)
    assert np.array_equal(item[TASK_RESULT_KEY].numpy(), image)
    assert item["data_format"] == "hwc"
    assert run_one("Mat2Tensor", image)["data_format"] == "nchw"


def test_mat2tensor_takes_a_part_of_a_matrix_and_floats() -> None:
    image = photo().astype(np.float32) / 3
    tensor = run_one("S[CropMat,Mat2Tensor]", image, x1=3, y1=5, x2=40, y2=6)[TASK_RESULT_KEY]
    assert tensor.dtype == torch.float32
    assert np.array_equal(tensor[0].permute(1, 2, 0).numpy(), image[5:6, 3:40])


@pytest.mark.skipif(torch.cuda.is_available(), reason="this host has a GPU")
@pytest.mark.parametrize("device", ["gpu", "cuda", "CUDA"])
def test_mat2tensor_for_a_gpu_is_refused_at_load_on_a_host_without_one(device: str) -> None:
    with pytest.raises(PipelineConfigError, match=r'needs an NVIDIA GPU .* use device = "cpu"'):
        pipe({"node": {"backend": "S[DecodeMat,Mat2Tensor]", "device": device}})


def test_decode_mat_and_cvt_color_mat_keep_the_order_of_the_channels_in_the_item() -> None:
    data = jpeg(photo())
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert run_one("DecodeMat", data)["color"] == "bgr"
    item = run_one("S[DecodeMat,cvtColorMat]", data, color="rgb")
    assert item["color"] == "rgb"
    assert np.array_equal(item[TASK_RESULT_KEY], decoded[:, :, ::-1])
    twice = run_one("S[DecodeMat,cvtColorMat,cvtColorMat]", data, color="rgb")
    assert np.array_equal(twice[TASK_RESULT_KEY], decoded[:, :, ::-1])


def test_cvt_color_mat_goes_back_to_bgr_where_the_item_says_rgb() -> None:
    image = photo()
    item = run_one("cvtColorMat", image, item={"color": "rgb"}, color="bgr")
    assert np.array_equal(item[TASK_RESULT_KEY], image[:, :, ::-1])
    assert item["color"] == "bgr"


def test_cvt_color_mat_refuses_an_order_that_it_does_not_know() -> None:
    item = run_one("cvtColorMat", photo(), item={"color": "hsv"})
    assert 'color = \'hsv\': expected "rgb" or "bgr"' in str(item[TASK_ERROR_KEY])


@pytest.mark.parametrize(
    ("settings", "given"),
    [
        ({"x1": 3, "y1": 5, "x2": 40, "y2": 61}, {}),
        ({"x1": 9, "y1": 9}, {"x1": 3, "y1": 5, "x2": 40, "y2": 61}),
        ({}, {"_box": [3, 5, 40, 61]}),
        ({"x1": 0, "y1": 0, "x2": 1, "y2": 1}, {"BOX": np.array([3, 5, 40, 61])}),
        ({}, {"_box": (3, 5, 40, 61, 0.97)}),
        ({}, {"_box": torch.tensor([3, 5, 40, 61])}),
    ],
    ids=["node", "item", "v0", "main", "with-score", "tensor"],
)
def test_crop_mat_cuts_out_a_part(settings: dict[str, int], given: dict[str, Any]) -> None:
    image = photo()
    result = run_one("CropMat", image, item=given, **settings)[TASK_RESULT_KEY]
    assert np.array_equal(result, image[5:61, 3:40])


def test_crop_mat_takes_the_whole_image_and_a_single_pixel() -> None:
    image = photo()
    assert np.array_equal(run_one("CropMat", image, item={"_box": [0, 0, 83, 61]})["result"], image)
    corner = run_one("CropMat", image, item={"_box": [82, 60, 83, 61]})["result"]
    assert np.array_equal(corner, image[60:, 82:])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "CropMat needs x1, y1, x2, y2, in the node or in the item"),
        ({"x1": 1, "x2": 2, "y1": 1}, "CropMat needs y2, in the node or in the item"),
        ({"_box": [0, 0, 84, 61]}, "(0, 0) to (84, 61) does not lie within 83 x 61"),
        ({"_box": [0, 0, 83, 62]}, "does not lie within 83 x 61"),
        ({"_box": [-1, 0, 9, 9]}, "does not lie within 83 x 61"),
        ({"_box": [9, 9, 9, 12]}, "does not lie within 83 x 61"),
        ({"_box": [1, 2, 3]}, "_box = [1, 2, 3]: expected x1, y1, x2, y2"),
        ({"BOX": [0.5, 1, 2, 3]}, "BOX = [0.5, 1, 2, 3]: expected four whole numbers"),
        ({"_box": 7}, "_box = 7: expected four whole numbers"),
        ({"x1": "1", "y1": 1, "x2": 2, "y2": 2}, "expected four whole numbers"),
    ],
)
def test_a_part_that_does_not_lie_in_the_image_fails_that_item_alone(
    given: dict[str, Any], message: str
) -> None:
    items: list[dict[str, Any]] = [{"data": photo(), **given}]
    items.append({"data": photo(), "_box": [0, 0, 2, 2]})
    with pipe({"node": {"backend": "CropMat"}}) as run:
        run(items)
    assert message in str(items[0][TASK_ERROR_KEY])
    assert TASK_RESULT_KEY not in items[0]
    assert items[1][TASK_RESULT_KEY].shape == (2, 2, 3)


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


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backend": "CropMat", "x1": 5, "x2": 5}, r"CropMat needs x1 < x2, got x1 = 5 and x2 = 5"),
        ({"backend": "CropMat", "y1": 5, "y2": 4}, r"CropMat needs y1 < y2"),
        ({"backend": "CropMat", "x1": -1}, r"x1 = -1: expected pixels, at least 0"),
        ({"backend": "Mat2Tensor", "device": "tpu"}, r'device = \'tpu\': expected "cpu", "gpu" or'),
        ({"backend": "Mat2Tensor", "data_format": "nhcw"}, r'expected "nchw" or "hwc"'),
    ],
)
def test_settings_that_cannot_work_are_refused_at_load(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(PipelineConfigError, match=message):
        pipe({"node": settings})


@pytest.mark.parametrize("backend", ["ResizeMat", "cvtColorMat", "CropMat", "Mat2Tensor"])
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"bytes", "expected a matrix, such as DecodeMat gives, got bytes"),
        (torch.zeros(4, 4, 3), "expected a matrix, such as DecodeMat gives, got Tensor"),
        (np.zeros((4, 4)), r"expected a matrix of uint8 or float32 .* got float64 \(4, 4\)"),
        (np.zeros((4, 4, 3), np.int16), r"got int16 \(4, 4, 3\)"),
        (np.zeros((4, 4, 4), np.uint8), r"got uint8 \(4, 4, 4\)"),
        (np.zeros((0, 4, 3), np.uint8), r"got uint8 \(0, 4, 3\)"),
    ],
)
def test_what_is_no_matrix_fails_that_item_alone(backend: str, data: Any, message: str) -> None:
    globals_ = {"resize_h": 2, "resize_w": 2, "x1": 0, "y1": 0, "x2": 2, "y2": 2}
    items = [{"data": data}, {"data": photo()}]
    with pipe({**globals_, "node": {"backend": backend}}) as run:
        run(items)
    assert re.search(message, str(items[0][TASK_ERROR_KEY]))
    assert TASK_RESULT_KEY not in items[0]
    assert TASK_RESULT_KEY in items[1]


def test_mat2cpu_tensor_needs_no_device_and_tensor2mat_takes_it_back() -> None:
    image = np.random.default_rng(3).integers(0, 256, (5, 7, 3), np.uint8)
    for backend in ("Mat2CpuTensor", "Mat2CpuTensor(data_format=hwc)"):
        item = {"data": image}
        with pipe({"node": {"backend": f"S[{backend},Tensor2Mat]"}}) as run:
            run(item)
        assert np.array_equal(item["result"], image)
        assert item["result"].dtype == np.uint8


def test_tensor2mat_refuses_what_is_no_image() -> None:
    items = [
        {"data": data}
        for data in (torch.zeros(2, 3, 4, 4), torch.zeros(1, 1, 4, 4), torch.zeros(4), "text")
    ]
    with pipe({"node": {"backend": "Tensor2Mat"}}) as run:
        run(items)
    for item, message in zip(
        items,
        ("takes one image", "expected a matrix", "takes an image", "takes a tensor"),
        strict=True,
    ):
        assert message in str(item["error"])


def test_mat2gpu_tensor_names_the_cpus_operator_on_a_host_without_a_gpu() -> None:
    if torch.cuda.is_available():
        pytest.skip("this host has a GPU")
    with pytest.raises(PipelineConfigError, match=r"Mat2GpuTensor needs an NVIDIA GPU.*Mat2CpuTen"):
        pipe({"node": {"backend": "Mat2GpuTensor"}})


def test_each_item_names_the_size_that_its_matrix_gets() -> None:
    image = np.random.default_rng(4).integers(0, 256, (5, 7, 3), np.uint8)
    items = [{"data": image, "resize_h": np.int64(3), "resize_w": 4}, {"data": image}]
    with pipe({"node": {"backend": "S[DynamicResizeMat,FloatMat]"}}) as run:
        run(items)
    expected = cv2.resize(image, (4, 3), interpolation=cv2.INTER_LINEAR).astype(np.float32)
    assert np.array_equal(items[0]["result"], expected)
    assert items[0]["result"].dtype == np.float32
    assert "DynamicResizeMat needs resize_h and resize_w in the item" in str(items[1]["error"])
