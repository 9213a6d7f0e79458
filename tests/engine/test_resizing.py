"""How an image comes to the size of a model."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from engine.errors import EngineError
from engine.resizing import Resizing, kept_ratio


def test_the_shorter_side_is_named_and_the_other_one_follows() -> None:
    """As torchvision's Resize computes it: rounded down."""
    assert kept_ratio((375, 500), 256) == (256, 341)
    assert kept_ratio((500, 375), 256) == (341, 256)
    assert kept_ratio((256, 256), 256) == (256, 256)


def test_the_middle_is_cut_out_where_torchvision_does_it() -> None:
    image = np.random.default_rng(seed=1).integers(0, 256, (375, 500, 3), np.uint8)
    resized = cv2.resize(image, (341, 256), interpolation=cv2.INTER_LINEAR)
    # CenterCrop: int(round((341 - 224) / 2.0)) is 58, (256 - 224) / 2 is 16.
    assert np.array_equal(Resizing(224, 224, 256)(image), resized[16:240, 58:282])
    plain = cv2.resize(image, (320, 224), interpolation=cv2.INTER_LINEAR)
    assert np.array_equal(Resizing(224, 320)(image), plain)


def test_a_middle_that_is_larger_than_the_image_is_refused() -> None:
    with pytest.raises(EngineError, match=r"resize 200 is less than the 224x224 .* usual is 256"):
        Resizing(224, 224, 200)
