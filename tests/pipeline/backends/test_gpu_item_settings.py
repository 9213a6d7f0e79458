"""What items may ask of operators on the GPU; reading it needs none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pipeline.backends.gpu import border_of, refuse_another_size

NODE = {"left": 1, "right": 2, "top": 3, "bottom": 4}


@pytest.mark.parametrize(
    ("item", "border"),
    [
        ({}, [1, 2, 3, 4]),
        ({"top": 0}, [1, 2, 0, 4]),
        ({"top": 5, "bottom": 15, "left": 25, "right": 35}, [25, 35, 5, 15]),
        ({"left": np.int64(7)}, [7, 2, 3, 4]),
    ],
)
def test_an_item_may_bring_its_own_border(item: dict[str, Any], border: list[int]) -> None:
    assert border_of(item, NODE) == border


@pytest.mark.parametrize("given", [-1, 8193, 1.5, None, "wide"])
def test_a_border_that_is_none_is_refused(given: object) -> None:
    with pytest.raises(ValueError, match=r"border \{'top': .*expected pixels, 0 to 8192"):
        border_of({"top": given}, NODE)


@pytest.mark.parametrize("item", [{}, {"resize_h": 8}, {"resize_h": 8, "resize_w": np.int64(9)}])
def test_an_item_may_name_the_nodes_size(item: dict[str, Any]) -> None:
    refuse_another_size(item, (8, 9))


@pytest.mark.parametrize("item", [{"resize_h": 9}, {"resize_w": 8}, {"resize_w": "9"}])
def test_an_item_of_another_size_is_not_resized_to_the_nodes(item: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"8 x 9, and the item asks for .*DynamicResizeTensor"):
        refuse_another_size(item, (8, 9))
