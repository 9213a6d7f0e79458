"""Images that carry their own check value: no two of them have the same right answer.

An image of one colour stays that colour when it is resized, and the colours' model (see
`tests.robustness.colour_model`) gives it a score for each channel that its colour alone decides. So
an answer that belongs to another request, or comes from another model, is wrong by its scores.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from tests.robustness.colour_model import LABELS, SHARPNESS

_SIDE = 8
# Nearer to each other than all of 0..255: scores of 0 and 1 would be those of many colours.
_DARKEST, _BRIGHTEST = 100, 160
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class CheckedImage:
    """An image, and what the right answer to it is.

    Attributes:
        data: the file's bytes.
        scores: label to probability.
    """

    data: bytes
    scores: dict[str, float]

    def mistake(self, result: dict[int, Any], uuid: bytes) -> str:
        """What is wrong with a result that is no error; "" where it is right.

        Args:
            result: the InferenceResult by field, with all classes in its top_k.
            uuid: of the request.
        """
        if result.get(3) != uuid:
            return f"the uuid is {result.get(3)!r} and not {uuid!r}"
        got = {entry[2].decode(): entry[3] for entry in result.get(5, [])}
        if got.keys() != self.scores.keys():
            return f"the classes are {sorted(got)}"
        if any(abs(got[label] - score) > _TOLERANCE for label, score in self.scores.items()):
            return f"the scores are {got} and not {self.scores}"
        best = max(got, key=lambda label: got[label])
        return "" if result.get(1) == best.encode() else f"the label is {result.get(1)!r}"


def random_image(rng: random.Random) -> CheckedImage:
    """An image of a random colour."""
    colour = [rng.randint(_DARKEST, _BRIGHTEST) for _ in LABELS]
    pixels = np.empty((_SIDE, _SIDE, 3), np.uint8)
    pixels[:] = colour[::-1]  # OpenCV's channel order is blue, green, red
    _, data = cv2.imencode(".png", pixels)
    powers = [math.exp(SHARPNESS * channel / 255) for channel in colour]
    scores = {label: power / sum(powers) for label, power in zip(LABELS, powers, strict=True)}
    return CheckedImage(data.tobytes(), scores)
