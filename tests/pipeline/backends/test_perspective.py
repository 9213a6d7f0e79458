"""Quadrilaterals that are cut out and straightened."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pipeline import pipe

IMAGE = np.random.default_rng(1).integers(0, 256, (40, 60, 3), np.uint8)


def run_one(backend: str, **item: Any) -> dict[str, Any]:
    item = {"data": IMAGE, **item}
    with pipe({"node": {"backend": backend}}) as run:
        run(item)
    return item


@pytest.mark.parametrize("key", ["_box", "BOX"])
def test_an_upright_rectangle_is_a_crop(key: str) -> None:
    corners = [[10, 5], [30, 5], [30, 25], [10, 25]]
    item = run_one("PerspectiveTransformMat", **{key: corners})
    assert np.array_equal(item["result"], IMAGE[5:25, 10:30])


def test_a_rectangle_that_lies_is_turned() -> None:
    # Its top left corner is the image's bottom left one.
    corners = [[10, 25], [10, 5], [30, 5], [30, 25]]
    result = run_one("PerspectiveTransformMat", _box=corners)["result"]
    assert result.shape == (20, 20, 3)
    assert np.array_equal(result[:, :-1], np.rot90(IMAGE[5:26, 10:30], -1)[:, 0:-1][:, :19])


def test_beyond_the_edge_it_is_black_or_the_edge_repeated() -> None:
    corners = [[-10, 0], [10, 0], [10, 20], [-10, 20]]
    black = run_one("PerspectiveTransformMat", _box=corners)["result"]
    (edge,) = run_one("PerspectiveTransformMats", _box=[corners])["result"]
    assert not black[:, :9].any()
    assert np.array_equal(edge[:, 0], IMAGE[:20, 0])
    assert np.array_equal(black[:, 10:], edge[:, 10:])


def test_a_list_may_be_empty() -> None:
    assert run_one("PerspectiveTransformMats", _box=[])["result"] == []


@pytest.mark.parametrize(
    ("corners", "message"),
    [
        (None, "takes four corners"),
        ([[0, 0], [1, 1]], "takes four corners"),
        ([[0, 0], [1, "x"], [2, 2], [3, 3]], "expected four corners"),
        ([[0, 0], [0, 0], [5, 5], [0, 5]], "give 0 x 5 pixels"),
        ([[0, 0], [9000, 0], [9000, 5], [0, 5]], "give 9000 x 5 pixels: allowed are 1 to 8192"),
        ([[0, 0], [float("nan"), 0], [5, 5], [0, 5]], "takes four corners"),
    ],
)
def test_corners_that_are_none_fail(corners: Any, message: str) -> None:
    assert message in str(run_one("PerspectiveTransformMat", _box=corners)["error"])


def test_an_item_without_corners_fails() -> None:
    assert "needs the corners in the item's _box or BOX" in str(
        run_one("PerspectiveTransformMat")["error"]
    )
