"""Decoding and preprocessing, one image after the other, as the quick-start does it."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from engine.normalization import Normalization
from engine.resizing import Resizing
from service.images.decoding import decode_bgr


class Preprocessor:
    """Encoded image to normalised tensor: imdecode, cvtColor, resize, ToTensor, Normalize.

    ToTensor and Normalize do what torchvision's transforms of those names do, and cost the same.

    Args:
        resizing: to the size of the model's input.
        normalization: of the model; None for one that takes bytes.
        reduced: whether JPEGs are decoded no larger than that needs.
    """

    def __init__(
        self, resizing: Resizing, normalization: Normalization | None, *, reduced: bool = False
    ) -> None:
        self._resizing = resizing
        self._least_side = resizing.least_side if reduced else 0
        self._takes_bytes = normalization is None
        if normalization is not None:
            self._mean = torch.tensor(normalization.mean).div(255).view(-1, 1, 1)
            self._std = torch.tensor(normalization.std).div(255).view(-1, 1, 1)

    def decode(self, data: Any, deadline_s: float = math.inf) -> npt.NDArray[np.uint8]:
        """Decode to uint8 (height, width, 3) in B, G, R order; InvalidImageError if it is none.

        Until `deadline_s`, on the monotonic clock, it may wait for memory.
        """
        return decode_bgr(data, deadline_s, self._least_side)

    def transform(self, image: npt.NDArray[np.uint8]) -> torch.Tensor:
        """Tensor of shape (1, 3, height, width) from a decoded image, R, G and B.

        float32; uint8 for a model that takes bytes.
        """
        rgb = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        resized = self._resizing(rgb)
        if self._takes_bytes:
            pixels = torch.from_numpy(np.ascontiguousarray(resized))
            return pixels.permute(2, 0, 1).unsqueeze(0)
        tensor = torch.from_numpy(resized.transpose(2, 0, 1)).contiguous().float().div(255)
        return tensor.sub(self._mean).div_(self._std).unsqueeze(0)
