"""The images that int8 quantisation learns the ranges of its tensors from."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from engine.bounded_file import UnreadableFileError, read_bounded
from engine.interface import EngineError

_SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".webp"}
_MIN_IMAGES = 3
_MAX_FILE_BYTES = 100 * 1024 * 1024
# Fewer than about fifty views leave ranges too narrow, and more than a few hundred move nothing.
_MIN_VIEWS = 60
_MAX_IMAGES = 300
# Crops keep this part of height and width, and begin at these parts from above and from the left.
_CROP = 0.7
_CROP_OFFSETS = [(down, right) for down in (0.15, 0.0, 0.3) for right in (0.15, 0.0, 0.3)]

_logger = logging.getLogger(__name__)


class CalibrationImages:
    """The images of a folder, each in as many views as make enough of them.

    Attributes:
        paths: the files that are used, sorted by name.
        sha256: of what is in the files and how they are used.

    Raises:
        EngineError: there is no such folder, or it holds too few images.
    """

    def __init__(self, folder: Path | None) -> None:
        if folder is None:
            raise EngineError(
                "precision int8 needs images to calibrate with: name a folder of images like "
                "those that will come with --calibration-images, or as calibration_images in "
                "the TOML file"
            )
        if not folder.is_dir():
            raise EngineError(f"calibration_images: there is no folder {folder}")
        found = sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES)
        readable = [path for path in _spread(found) if _decode(path) is not None]
        if len(readable) < _MIN_IMAGES:
            raise EngineError(
                f"calibration_images: {folder} has {len(readable)} images that can be decoded "
                f"({', '.join(sorted(_SUFFIXES))}); give at least {_MIN_IMAGES}, better 50"
            )
        self.paths = readable
        digest = hashlib.sha256(repr((_MIN_VIEWS, _CROP, _CROP_OFFSETS)).encode())
        for path in readable:
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        self.sha256 = digest.hexdigest()

    def views(self, height: int, width: int) -> Iterator[npt.NDArray[np.uint8]]:
        """RGB images of shape (1, height, width, 3), resized as requests are."""
        wanted = math.ceil(_MIN_VIEWS / len(self.paths))
        for path in self.paths:
            image = _decode(path)
            if image is None:
                raise EngineError(f"calibration_images: {path} changed while it was in use")
            for view in _views(image)[:wanted]:
                resized = cv2.resize(view, (width, height), interpolation=cv2.INTER_LINEAR)
                rgb = cv2.cvtColor(resized, cv2.COLOR_BGR2RGB)
                yield np.asarray(rgb, dtype=np.uint8)[None]


def _spread(paths: list[Path]) -> list[Path]:
    """At most `_MAX_IMAGES` of the files, evenly from first to last."""
    if len(paths) <= _MAX_IMAGES:
        return paths
    return [paths[index * len(paths) // _MAX_IMAGES] for index in range(_MAX_IMAGES)]


def _decode(path: Path) -> npt.NDArray[np.uint8] | None:
    """The image in B, G, R order; None, with a word in the log, where it is none."""
    try:
        encoded = np.frombuffer(read_bounded(path, _MAX_FILE_BYTES), np.uint8)
    except UnreadableFileError as error:
        _logger.warning("calibration_images: %s is left out: %s", path, error)
        return None
    image = cv2.imdecode(encoded, cv2.IMREAD_COLOR) if encoded.size else None
    if image is None:
        _logger.warning("calibration_images: %s is not an image that can be decoded", path)
        return None
    return np.asarray(image, dtype=np.uint8)


def _views(image: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.uint8]]:
    """The image, its mirror image, and crops of both, the most different ones first."""
    height, width = image.shape[:2]
    crops = [image]
    for down, right in _CROP_OFFSETS:
        top, left = int(height * down), int(width * right)
        bottom, end = top + math.ceil(height * _CROP), left + math.ceil(width * _CROP)
        crops.append(image[top:bottom, left:end])
    return [view for crop in crops for view in (crop, crop[:, ::-1])]
