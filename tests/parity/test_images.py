"""The operators on the CPU that both have give the same pixels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest

from tests.parity.messages import Call, Case, Outcome, PlainItem
from tests.parity.values import to_plain

pytestmark = pytest.mark.timeout(1800)

# What torchpipe's own has always been, and ours has where it is asked for.
_AS_MATRIX = {"device": "cpu", "data_format": "hwc"}


def _image() -> np.ndarray[Any, Any]:
    small = np.random.default_rng(seed=0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    return cv2.resize(small, (161, 121), interpolation=cv2.INTER_CUBIC)


def _encoded(extension: str, image: np.ndarray[Any, Any], *options: int) -> PlainItem:
    return {"data": to_plain(cv2.imencode(extension, image, options)[1].tobytes())}


def _files() -> dict[str, PlainItem]:
    image = _image()
    return {
        "jpeg": _encoded(".jpg", image),
        "progressive": _encoded(".jpg", image, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        "grey": _encoded(".jpg", image[:, :, 0]),
        "png": _encoded(".png", image),
        "alpha": _encoded(".png", np.dstack([image, image[:, :, :1]])),
        "png16": _encoded(".png", image.astype(np.uint16) * 257),
        "bmp": _encoded(".bmp", image),
        "tiff": _encoded(".tiff", image),
    }


def _node(members: str, **settings: object) -> dict[str, Any]:
    return {"@only": {"backend": f"S[{members},Mat2Tensor]", **_AS_MATRIX, **settings}}


def _all_filled(outcome: Outcome) -> bool:
    return all("result" in item for answer in outcome.answers for item in answer.items)


def test_decoded_files_have_the_same_pixels(agree: Callable[[Case], Outcome]) -> None:
    calls = [Call([item]) for item in _files().values()]
    assert _all_filled(agree(Case(_node("DecodeMat"), calls)))


@pytest.mark.parametrize("kind", ["truncated", "no image", "no bytes", "a number"])
def test_what_is_no_image_fails(agree: Callable[[Case], Outcome], kind: str) -> None:
    jpeg = bytes.fromhex(_files()["jpeg"]["data"]["bytes"])
    data: dict[str, object] = {
        "truncated": jpeg[: len(jpeg) // 2],
        "no image": b"no image",
        "no bytes": b"",
        "a number": 3,
    }
    outcome = agree(Case(_node("DecodeMat"), [Call([{"data": to_plain(data[kind])}])]))
    assert not _all_filled(outcome)


@pytest.mark.parametrize(
    ("members", "settings"),
    [
        ("DecodeMat,ResizeMat", {"resize_h": 32, "resize_w": 40}),
        ("DecodeMat,ResizeMat", {"resize_h": 300, "resize_w": 200}),
        ("DecodeMat,ResizeMat", {"resize_h": 121, "resize_w": 161}),
        ("DecodeMat,cvtColorMat", {"color": "rgb"}),
        ("DecodeMat,CvtColorMat,ResizeMat", {"color": "bgr", "resize_h": 7, "resize_w": 9}),
        ("DecodeMat,ResizeMat,cvtColorMat", {"color": "rgb", "resize_h": 224, "resize_w": 224}),
        ("DecodeMat,LetterBoxMat", {"resize_h": 64, "resize_w": 50}),
        ("DecodeMat,LetterBoxMat", {"resize_h": 50, "resize_w": 64, "pad_val": 7}),
        ("DecodeMat,LetterBoxMat", {"resize_h": 256, "resize_w": 256, "pad_val": "3,5,9"}),
        ("DecodeMat,TopLeftResizeMat", {"resize_h": 64, "resize_w": 50}),
        ("DecodeMat,TopLeftResizeMat", {"resize_h": 50, "resize_w": 64, "pad_val": "3,5,9"}),
        ("DecodeMat,Mat2Tensor,Tensor2Mat", {}),
    ],
)
def test_operators_give_the_same_pixels(
    agree: Callable[[Case], Outcome], members: str, settings: dict[str, object]
) -> None:
    files = _files()
    calls = [Call([files[name]]) for name in ("jpeg", "png", "grey")]
    assert _all_filled(agree(Case(_node(members, **settings), calls)))
