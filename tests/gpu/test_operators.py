"""The image operators on the GPU, compared with OpenCV's on the CPU."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from pipeline import TASK_DATA_KEY, TASK_ERROR_KEY, TASK_RESULT_KEY, Pipe, PipelineConfigError, pipe
from pipeline.backends.cpu_operator import CpuOperator
from pipeline.backends.gpu_decoding import DecodeTensor
from pipeline.backends.interface import Item
from pipeline.backends.registry import register
from service.images.decoding import decode_bgr

SMALL = {"resize_h": 32, "resize_w": 32}


def run(backend: str, data: list[Any], **settings: Any) -> list[dict[str, Any]]:
    items = [{TASK_DATA_KEY: one} for one in data]
    with pipe({"node": {"backend": backend, **settings}}) as running:
        running(items)
    return items


def as_matrix(tensor: torch.Tensor) -> np.ndarray:
    assert tensor.dtype == torch.uint8
    return tensor.cpu()[0].permute(1, 2, 0).numpy()


def assert_close(got: np.ndarray, wanted: np.ndarray) -> None:
    """Within 2 grey levels on 99 % of the pixels."""
    assert got.shape == wanted.shape
    difference = np.abs(got.astype(int) - wanted.astype(int))
    assert (difference <= 2).mean() >= 0.99, difference.max()


@register("TestThreadOfCopy")
class ThreadOfCopy(CpuOperator):
    """Says in which thread and on which stream it runs."""

    def process(self, item: Item) -> Any:
        item["thread"] = threading.get_ident()
        item["stream"] = torch.cuda.current_stream().cuda_stream
        return item[TASK_DATA_KEY]


def test_what_copies_to_the_gpu_stays_on_the_stream_of_its_instance(
    photographs: list[bytes],
) -> None:
    default = torch.cuda.default_stream().cuda_stream
    backend = "S[DecodeMat,Mat2Tensor,TestThreadOfCopy]"
    with pipe({"node": {"backend": backend, "device": "gpu"}}) as running:
        for data in photographs * 5:
            item: dict[str, Any] = {TASK_DATA_KEY: data}
            running(item)
            assert item["thread"] != threading.get_ident()
            assert item["stream"] != default


def test_decoded_pixels_are_those_of_the_cpu(shipped_images: list[bytes]) -> None:
    for color in ("bgr", "rgb"):
        items = run("DecodeTensor", shipped_images, color=color)
        for item, data in zip(items, shipped_images, strict=True):
            wanted = decode_bgr(data)
            assert item[TASK_RESULT_KEY].is_cuda
            assert_close(
                as_matrix(item[TASK_RESULT_KEY]), wanted if color == "bgr" else wanted[:, :, ::-1]
            )


def test_what_the_jpeg_engine_refuses_is_decoded_on_the_cpu(
    odd_images: dict[str, bytes], photographs: list[bytes]
) -> None:
    data = [photographs[1], *odd_images.values(), photographs[2]]
    for item, one in zip(run("DecodeTensor", data, color="bgr"), data, strict=True):
        assert_close(as_matrix(item[TASK_RESULT_KEY]), decode_bgr(one))


@pytest.mark.parametrize(
    "bad",
    [b"", b"no image", b"\xff\xd8\xff", "text", 7],
    ids=["empty", "text", "stub", "str", "int"],
)
def test_a_bad_image_fails_alone(bad: Any, photographs: list[bytes]) -> None:
    first, failed, last = run("DecodeTensor", [photographs[0], bad, photographs[1]])
    assert TASK_RESULT_KEY in first
    assert TASK_RESULT_KEY in last
    assert TASK_RESULT_KEY not in failed
    assert "image" in str(failed[TASK_ERROR_KEY])


def test_a_truncated_jpeg_is_refused_as_on_the_cpu(photographs: list[bytes]) -> None:
    half = photographs[0][: len(photographs[0]) // 2]
    for data in (half, half + b"\xff\xd9"):
        on_gpu, on_cpu = (run(name, [data])[0] for name in ("DecodeTensor", "DecodeMat"))
        assert (TASK_ERROR_KEY in on_gpu) == (TASK_ERROR_KEY in on_cpu)
    assert TASK_ERROR_KEY in run("DecodeTensor", [half])[0]


def test_a_batch_is_resized_as_by_opencv(
    shipped_images: list[bytes], odd_images: dict[str, bytes]
) -> None:
    data = [*shipped_images, *odd_images.values()]
    items = run("S[DecodeTensor,ResizeTensor]", data, color="bgr", resize_h=224, resize_w=200)
    for item, one in zip(items, data, strict=True):
        assert_close(as_matrix(item[TASK_RESULT_KEY]), cv2.resize(decode_bgr(one), (200, 224)))


def test_more_images_than_one_launch_takes(photographs: list[bytes]) -> None:
    data = photographs * 30
    items = run("S[DecodeTensor,ResizeTensor]", data, color="bgr", resize_h=32, resize_w=48)
    for item, one in zip(items[-7:], data[-7:], strict=True):
        assert_close(as_matrix(item[TASK_RESULT_KEY]), cv2.resize(decode_bgr(one), (48, 32)))


def test_images_on_the_host_are_copied_and_resized(photographs: list[bytes]) -> None:
    wanted = [cv2.resize(decode_bgr(one), (48, 32))[:, :, ::-1] for one in photographs]
    for layout in ("nchw", "hwc"):
        chain = f"S[DecodeMat,Mat2Tensor(data_format={layout}),ResizeTensorV1,CvtColorTensor]"
        items = run(chain, photographs, color="rgb", resize_h=32, resize_w=48)
        for item, one in zip(items, wanted, strict=True):
            assert_close(as_matrix(item[TASK_RESULT_KEY]), one)
    decoded = run("S[DecodeTensor,ResizeTensorV1]", photographs[:1], resize_h=32, resize_w=48)[0]
    assert_close(as_matrix(decoded[TASK_RESULT_KEY]), wanted[0])
    floats = run("S[DecodeMat,FloatMat,ResizeTensorV1]", photographs[:1], resize_h=3, resize_w=4)
    assert "expected uint8" in str(floats[0][TASK_ERROR_KEY])


def test_colour_is_converted_once(photographs: list[bytes]) -> None:
    wanted = decode_bgr(photographs[0])
    decoded = run("S[DecodeTensor,CvtColorTensor]", photographs[:1], color="rgb")[0]
    assert_close(as_matrix(decoded[TASK_RESULT_KEY]), wanted[:, :, ::-1])
    copied = run("S[DecodeMat,GpuTensor,CvtColorTensor]", photographs[:1], color="rgb")[0]
    np.testing.assert_array_equal(as_matrix(copied[TASK_RESULT_KEY]), wanted[:, :, ::-1])


def test_a_crop_is_a_slice_and_can_be_resized(photographs: list[bytes]) -> None:
    matrix = decode_bgr(photographs[0])
    corners = {"x1": 11, "y1": 20, "x2": 111, "y2": 90}
    part = matrix[20:90, 11:111]
    cropped = run("S[GpuTensor,CropTensor]", [matrix], **corners)[0]
    np.testing.assert_array_equal(as_matrix(cropped[TASK_RESULT_KEY]), part)
    resized = run(
        "S[GpuTensor,CropTensor,ResizeTensor]", [matrix], resize_h=50, resize_w=60, **corners
    )[0]
    assert_close(as_matrix(resized[TASK_RESULT_KEY]), cv2.resize(part, (60, 50)))
    own = {TASK_DATA_KEY: matrix, **corners, "x1": 50}
    with pipe({"node": {"backend": "S[GpuTensor,CropTensor]", **corners}}) as running:
        running(own)
    np.testing.assert_array_equal(as_matrix(own[TASK_RESULT_KEY]), matrix[20:90, 50:111])
    boxed = {TASK_DATA_KEY: matrix, "_box": [11, 20, 111, 90, 0.5]}
    with pipe({"node": {"backend": "S[GpuTensor,CropTensor]"}}) as running:
        running(boxed)
    np.testing.assert_array_equal(as_matrix(boxed[TASK_RESULT_KEY]), part)
    beyond = run("S[GpuTensor,CropTensor]", [matrix], x1=0, y1=0, x2=100_000, y2=9)[0]
    assert "does not lie within" in str(beyond[TASK_ERROR_KEY])
    missing = run("S[GpuTensor,CropTensor]", [matrix], x1=0)[0]
    assert "needs y1, x2, y2" in str(missing[TASK_ERROR_KEY])


@pytest.mark.parametrize(
    "backend",
    [
        "PermuteTensor(dims='0,2,3,1')",
        "UnsqueezeTensor",
        "SqueezeTensor",
        "FloatNCHWTensor",
        "S[SplitTensor,CatTensor]",
        "ArgMaxTensor",
        "ResizePadTensor(max_h=300,max_w=200,pad_value=9)",
    ],
)
def test_operators_on_tensors_give_the_same_on_both(photographs: list[bytes], backend: str) -> None:
    matrix = decode_bgr(photographs[0])
    on_cpu = run(f"S[Mat2CpuTensor,{backend}]", [matrix])[0][TASK_RESULT_KEY]
    # Beside the operators of the GPU, and in a node of its own, which has no stream.
    here = run(f"S[GpuTensor,{backend}]", [matrix])[0][TASK_RESULT_KEY]
    apart = {
        "copy": {"backend": "GpuTensor", "next": "work"},
        "work": {"backend": f"S[{backend}]"},
    }
    item: dict[str, Any] = {TASK_DATA_KEY: matrix}
    with pipe(apart) as running:
        running(item)
    for got in (here, item[TASK_RESULT_KEY]):
        assert got.is_cuda
        assert got.dtype == on_cpu.dtype
        torch.testing.assert_close(got.cpu(), on_cpu, rtol=1e-4, atol=1e-2)


def test_a_tensor_of_the_gpu_becomes_a_matrix_and_a_file(
    photographs: list[bytes], tmp_path: Path
) -> None:
    matrix = decode_bgr(photographs[0])
    item = run("S[Mat2GpuTensor,SaveTensor,Tensor2Mat]", [matrix], save_dir=str(tmp_path))[0]
    np.testing.assert_array_equal(item[TASK_RESULT_KEY], matrix)
    (path,) = tmp_path.iterdir()
    np.testing.assert_array_equal(as_matrix(torch.load(path)), matrix)


def test_a_border_is_that_of_opencv(photographs: list[bytes]) -> None:
    matrix = decode_bgr(photographs[0])
    border = {"top": 1, "bottom": 2, "left": 3, "right": 4}
    item = run("S[GpuTensor,CopyMakeBorderTensor]", [matrix], pad_value=7, **border)[0]
    wanted = cv2.copyMakeBorder(matrix, 1, 2, 3, 4, cv2.BORDER_CONSTANT, value=(7, 7, 7))
    np.testing.assert_array_equal(as_matrix(item[TASK_RESULT_KEY]), wanted)


def test_an_item_may_bring_its_own_border(photographs: list[bytes]) -> None:
    matrix = decode_bgr(photographs[0])
    items: list[dict[str, Any]] = [
        {TASK_DATA_KEY: matrix, "top": 5, "bottom": 15, "left": 25, "right": 35},
        {TASK_DATA_KEY: matrix, "top": -1},
        {TASK_DATA_KEY: matrix},
    ]
    with pipe({"node": {"backend": "S[GpuTensor,PPLCopyMakeBorderTensor]", "left": 2}}) as running:
        running(items)
    wanted = cv2.copyMakeBorder(matrix, 5, 15, 25, 35, cv2.BORDER_CONSTANT)
    np.testing.assert_array_equal(as_matrix(items[0][TASK_RESULT_KEY]), wanted)
    assert "the item's border {'top': -1}" in str(items[1][TASK_ERROR_KEY])
    wanted = cv2.copyMakeBorder(matrix, 0, 0, 2, 0, cv2.BORDER_CONSTANT)
    np.testing.assert_array_equal(as_matrix(items[2][TASK_RESULT_KEY]), wanted)


def test_an_item_of_another_size_is_not_resized_to_the_nodes(photographs: list[bytes]) -> None:
    matrix = decode_bgr(photographs[0])
    items: list[dict[str, Any]] = [
        {TASK_DATA_KEY: torch.from_numpy(matrix)},
        {TASK_DATA_KEY: matrix, "resize_h": 64},
    ]
    with pipe({"node": {"backend": "PPLResizeTensor", **SMALL}}) as running:
        running(items)
    assert_close(as_matrix(items[0][TASK_RESULT_KEY]), cv2.resize(matrix, (32, 32)))
    assert "use DynamicResizeTensor" in str(items[1][TASK_ERROR_KEY])


def test_there_and_back(photographs: list[bytes]) -> None:
    matrix = decode_bgr(photographs[0])
    item = run("S[GpuTensor,CpuTensor]", [matrix])[0]
    assert not item[TASK_RESULT_KEY].is_cuda
    np.testing.assert_array_equal(as_matrix(item[TASK_RESULT_KEY]), matrix)


def test_what_lies_on_the_host_is_named(photographs: list[bytes]) -> None:
    item = run("S[DecodeMat,ResizeTensor]", photographs[:1], resize_h=8, resize_w=8)[0]
    assert "put GpuTensor before" in str(item[TASK_ERROR_KEY])


def test_nodes_hand_on_results_that_are_there(photographs: list[bytes]) -> None:
    """Each node has streams of its own; without waiting, a later one would read half an image."""
    document = {
        "instance_num": 3,
        "decode": {"backend": "DecodeTensor", "color": "bgr", "next": "resize"},
        "resize": {"backend": "ResizeTensor", "resize_h": 64, "resize_w": 64, "next": "back"},
        "back": {"backend": "CpuTensor"},
    }
    wanted = [cv2.resize(decode_bgr(data), (64, 64)) for data in photographs]
    with pipe(document) as running:
        for _ in range(20):
            items = [{TASK_DATA_KEY: data} for data in photographs]
            running(items)
            for item, matrix in zip(items, wanted, strict=True):
                assert_close(as_matrix(item[TASK_RESULT_KEY]), matrix)


def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(PipelineConfigError, match="there is no GPU 63"):
        pipe({"node": {"backend": "GpuTensor", "device_id": 63}})


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_every_device_gets_a_set_of_instances(photographs: list[bytes]) -> None:
    document = {"node": {"backend": "GpuTensor", "device_id": "0,1", "instance_num": 2}}
    matrix = decode_bgr(photographs[0])
    with pipe(document) as running:
        assert isinstance(running, Pipe)
        items = [{TASK_DATA_KEY: matrix} for _ in range(400)]
        running(items)
    assert {item[TASK_RESULT_KEY].device.index for item in items} == {0, 1}


@register("TestDecodeTwice")
class DecodeTwice(DecodeTensor):
    """Raises after a batch of several, so that each of its items is decoded once more, alone."""

    def forward(self, items: Sequence[Item]) -> None:
        super().forward(items)
        if len(items) > 1:
            raise RuntimeError("not together")


def _grey(level: int) -> bytes:
    matrix = np.full((64, 64, 3), level, np.uint8)
    return cv2.imencode(".jpg", matrix)[1].tobytes()


@pytest.mark.parametrize(
    "backend",
    [
        "TestDecodeTwice",
        "S[TestDecodeTwice,ResizeTensor]",
        "S[Range(range='1,8')[TestDecodeTwice],ResizeTensor,CpuTensor]",
    ],
)
def test_images_that_are_decoded_again_alone_keep_memory_of_their_own(backend: str) -> None:
    levels = [50, 100, 200]
    document = {"node": {"backend": backend, **SMALL}}
    with pipe(document) as running:
        for _ in range(3):
            items = [{TASK_DATA_KEY: _grey(level)} for level in levels]
            running(items)
            for item, level in zip(items, levels, strict=True):
                pixels = as_matrix(item[TASK_RESULT_KEY])
                assert np.abs(pixels.astype(int) - level).max() <= 2


def test_decoder_memory_is_used_again(photographs: list[bytes]) -> None:
    """A loop of one image at a time takes no more memory on the GPU than its first passes."""
    with pipe({"node": {"backend": "S[DecodeTensor,ResizeTensor]", **SMALL}}) as running:
        for _ in range(5):
            running({TASK_DATA_KEY: photographs[0]})
        free_before = torch.cuda.mem_get_info()[0]
        for _ in range(200):
            running({TASK_DATA_KEY: photographs[0]})
        assert torch.cuda.mem_get_info()[0] >= free_before - 64 * 2**20
