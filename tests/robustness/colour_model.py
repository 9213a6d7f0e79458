"""A classifier that is right by construction: it names the strongest colour of an image.

Its inference takes microseconds, so that a run is spent in the server and not in the model, and
the label of every image is known before anything is asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from loadtest.load.images import Pixels
from tests.image_models import save_linear_classifier

LABELS = ("red", "green", "blue")
SIDE = 32
"""Height and width of the model's input, pixels."""

SHARPNESS = 20.0
# OpenCV's channel order is blue, green, red.
_CHANNELS = {"red": 2, "green": 1, "blue": 0}


@dataclass(frozen=True)
class ColourModel:
    """The files of the classifier."""

    model: Path
    labels: Path

    def arguments(self) -> list[str]:
        """What the service's command line needs to serve it."""
        files = ["--model", str(self.model), "--labels", str(self.labels)]
        return [*files, "--mean", "0", "--std", "255"]


def write_colour_model(folder: Path) -> ColourModel:
    """Write model and labels into `folder`."""
    files = ColourModel(folder / "colours.onnx", folder / "colours.txt")
    save_linear_classifier(files.model, np.eye(3, dtype=np.float32) * SHARPNESS, SIDE)
    files.labels.write_text("\n".join(LABELS) + "\n")
    return files


def pixels_of(label: str, width: int, height: int, seed: int = 0) -> Pixels:
    """A noisy image of that colour: uint8, height x width x 3, OpenCV's channel order."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 60, (height, width, 3), dtype=np.uint8)
    pixels[:, :, _CHANNELS[label]] += np.uint8(180)
    return pixels


def encoded(label: str, width: int, height: int, suffix: str = ".jpg", seed: int = 0) -> bytes:
    """An image file of that colour, in the format that `suffix` names."""
    _, data = cv2.imencode(suffix, pixels_of(label, width, height, seed))
    return data.tobytes()
