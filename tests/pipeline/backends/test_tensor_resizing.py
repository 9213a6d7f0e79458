"""Operators that resize image tensors, against torch's interpolate."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional

from pipeline import PipelineConfigError, pipe


def photo(height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(height * 1000 + width)
    return torch.randint(0, 256, (1, 3, height, width), generator=generator, dtype=torch.uint8)


def run_one(data: Any, extra: dict[str, Any] | None = None, **settings: Any) -> dict[str, Any]:
    item = {"data": data, **(extra or {})}
    with pipe({"node": settings}) as run:
        run(item)
    return item


@pytest.mark.parametrize(
    ("size", "fitted"),
    [((96, 160), (48, 80)), ((160, 96), (48, 29)), ((1, 997), (1, 80)), ((48, 80), (48, 80))],
)
def test_resize_pad_tensor_keeps_the_ratio_and_fills_up(
    size: tuple[int, int], fitted: tuple[int, int]
) -> None:
    image = photo(*size)
    for data in (image, image[0].permute(1, 2, 0)):
        item = run_one(data, backend="ResizePadTensor", max_h=48, max_w=80, pad_value=114)
        expected = torch.full((1, 3, 48, 80), 114.0)
        expected[:, :, : fitted[0], : fitted[1]] = functional.interpolate(
            image.float(), fitted, mode="bilinear", align_corners=True
        )
        assert torch.equal(item["result"], expected)
        back = item["inverse_trans"](fitted[1], fitted[0])
        assert back == pytest.approx((size[1], size[0]))


def test_each_item_names_its_size() -> None:
    image = photo(20, 30)
    item = run_one(image, {"resize_h": 7, "resize_w": 9}, backend="DynamicResizeTensor")
    expected = functional.interpolate(image.float(), (7, 9), mode="bilinear", align_corners=True)
    assert torch.equal(item["result"], expected)


@pytest.mark.parametrize(
    ("data", "extra", "message"),
    [
        (photo(2, 2), {}, "needs resize_h and resize_w in the item"),
        (photo(2, 2), {"resize_h": 0, "resize_w": 1}, "pixels from 1 to 8192, got {'resize_h': 0"),
        (photo(2, 2).repeat(2, 1, 1, 1), {"resize_h": 1, "resize_w": 1}, "takes one image"),
        (photo(2, 2)[:, :2], {"resize_h": 1, "resize_w": 1}, "with 1, 3 or 4 channels"),
    ],
)
def test_what_cannot_be_resized_fails(data: Any, extra: dict[str, int], message: str) -> None:
    assert message in str(run_one(data, extra, backend="DynamicResizeTensor")["error"])


def test_a_size_that_is_missing_is_refused() -> None:
    with pytest.raises(PipelineConfigError, match="ResizePadTensor needs max_h and max_w, in pix"):
        pipe({"node": {"backend": "ResizePadTensor", "max_h": 3}})
