"""Resizing within the engine's CUDA graph, compared with resizing by itself."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from pipeline import TASK_DATA_KEY, TASK_ERROR_KEY, TASK_RESULT_KEY, Pipe, pipe

NODE = {
    "backend": "S[DecodeTensor,ResizeTensor,CvtColorTensor,TensorrtTensor]",
    "resize_h": 224,
    "resize_w": 224,
    "model": "efficientnet_lite0",
    "max": 8,
    "precision": "fp16",
    "mean": "127.5, 127.5, 127.5",
    "std": "127.5, 127.5, 127.5",
    "color": "rgb",
}


def scores(running: Pipe, images: list[bytes]) -> list[torch.Tensor]:
    items: list[dict[str, Any]] = [{TASK_DATA_KEY: data} for data in images]
    running(items)
    return [item[TASK_RESULT_KEY] for item in items]


@pytest.fixture(scope="module")
def apart(shipped_images: list[bytes], odd_images: dict[str, bytes]) -> list[torch.Tensor]:
    """What the images get where every stage is a launch of its own."""
    with pipe({"node": {**NODE, "profile_stages": True}}) as running:
        return scores(running, [*shipped_images, *odd_images.values()])


@pytest.mark.parametrize("instance_num", [1, 3])
def test_scores_are_those_of_separate_stages(
    instance_num: int,
    apart: list[torch.Tensor],
    shipped_images: list[bytes],
    odd_images: dict[str, bytes],
) -> None:
    images = [*shipped_images, *odd_images.values()]
    with pipe({"node": {**NODE, "instance_num": instance_num}}) as running:
        with ThreadPoolExecutor(6) as pool:
            together = list(pool.map(lambda _: scores(running, images), range(12)))
        one_by_one = [scores(running, [image])[0] for image in images]
    for got in (*together, one_by_one):
        for mine, wanted in zip(got, apart, strict=True):
            torch.testing.assert_close(mine, wanted, atol=0.02, rtol=0)
            assert mine.argmax() == wanted.argmax()


def test_a_bad_image_fails_alone(apart: list[torch.Tensor], shipped_images: list[bytes]) -> None:
    items: list[dict[str, Any]] = [
        {TASK_DATA_KEY: data} for data in (shipped_images[0], b"no image", shipped_images[1])
    ]
    with pipe({"node": NODE}) as running:
        running(items)
    assert TASK_ERROR_KEY in items[1]
    assert items[0][TASK_RESULT_KEY].argmax() == apart[0].argmax()
    assert items[2][TASK_RESULT_KEY].argmax() == apart[1].argmax()


def test_another_size_than_the_engines_is_refused_by_the_engine(
    shipped_images: list[bytes],
) -> None:
    item: dict[str, Any] = {TASK_DATA_KEY: shipped_images[0]}
    with pipe({"node": {**NODE, "resize_h": 200}}) as running:
        running(item)
    assert "takes Nx3x224x224, got 1x3x200x224" in str(item[TASK_ERROR_KEY])
