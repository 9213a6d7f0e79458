"""The images that int8 quantisation learns the ranges of its tensors from."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from engine.cache.bounded_file import UnreadableFileError, read_bounded, why_no_folder
from engine.cpu.cores import available_cores
from engine.errors import EngineError
from engine.normalization import Normalization
from engine.onnx_graph.model import OnnxModel
from engine.options import EngineOptions
from engine.resizing import Resizing
from interfaces.image_folder import SKIP_BAD_IMAGES, evenly, find_images
from interfaces.options import dashed

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

    Args:
        folder: it; folders in it are not looked into.
        skip_bad: whether images that cannot be used are left out, and not a mistake.

    Raises:
        EngineError: there is no such folder, it has images that cannot be used, or too few.
    """

    def __init__(self, folder: Path | None, *, skip_bad: bool = False) -> None:
        if folder is None:
            raise EngineError(
                "precision int8 needs images to calibrate with: name a folder of images like "
                "those that will come with --calibration-images, or as calibration_images in "
                "the TOML file"
            )
        if reason := why_no_folder(folder):
            raise EngineError(f"calibration_images: {reason}")
        found = find_images([folder], _why_bad, threads=available_cores())
        if found.others:
            _logger.info("calibration_images: %s", found.left_out())
        replace(found, others=()).settle(
            lambda text: EngineError(f"calibration_images: {text}"),
            skip_bad=skip_bad,
            tell=partial(_logger.warning, "calibration_images: %s"),
            option=dashed(SKIP_BAD_IMAGES),
            in_one_line=True,
        )
        readable = evenly(found.usable, _MAX_IMAGES)
        if len(readable) < _MIN_IMAGES:
            raise EngineError(
                f"calibration_images: {folder} has {len(readable)} images that can be used; give "
                f"at least {_MIN_IMAGES}, better 50"
            )
        if len(readable) < len(found.usable):
            _logger.info(
                "calibration_images: %d of %d images are used, evenly from first to last",
                *(len(readable), len(found.usable)),
            )
        self.paths = readable
        digest = hashlib.sha256(repr((_MIN_VIEWS, _CROP, _CROP_OFFSETS)).encode())
        for path in readable:
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        self.sha256 = digest.hexdigest()

    def views(self, resizing: Resizing) -> Iterator[npt.NDArray[np.uint8]]:
        """RGB images of shape (1, height, width, 3), resized as requests are."""
        wanted = math.ceil(_MIN_VIEWS / len(self.paths))
        for path in self.paths:
            try:
                image = _decode(path)
            except ValueError as error:
                raise EngineError(
                    f"calibration_images: {path} changed while it was in use: {error}"
                ) from error
            for view in _views(image)[:wanted]:
                rgb = cv2.cvtColor(resizing(view), cv2.COLOR_BGR2RGB)
                yield np.asarray(rgb, dtype=np.uint8)[None]


def calibration_images(options: EngineOptions) -> CalibrationImages:
    """Those of an engine; raises as `CalibrationImages`."""
    return CalibrationImages(options.calibration_dir, skip_bad=options.calibration_skips_bad)


class CalibrationFeeds:
    """What a model's one input takes for each view of the calibration images.

    Args:
        model: takes one image, of one size or of several; then it gets the largest.
        images: the images.
        normalization: mean and std of a model that takes floats; None for one that takes pixels.
        shorter_side: of the images, before their middle is cut out; None to resize them whole.

    Raises:
        EngineError: the model takes something else, or floats without mean and std.
    """

    def __init__(
        self,
        model: OnnxModel,
        images: CalibrationImages,
        normalization: Normalization | None,
        shorter_side: int | None = None,
    ) -> None:
        self._spec = model.inputs[0]
        self._images = images
        self._normalization = normalization
        self._resizing = Resizing(*calibrated_size(model), shorter_side)
        self._takes_pixels = self._spec.dtype == torch.uint8
        if not self._takes_pixels and self._normalization is None:
            raise EngineError(
                f"{model.path} takes floats: to calibrate it with images, give mean and std"
            )

    def __iter__(self) -> Iterator[Mapping[str, npt.NDArray[Any]]]:
        for pixels in self._images.views(self._resizing):
            yield {self._spec.name: self._as_input(pixels)}

    def _as_input(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        """The pixels, (1, height, width, 3), as the model wants them."""
        if self._takes_pixels or self._normalization is None:
            ordered = pixels if self._spec.channels_last else pixels.transpose(0, 3, 1, 2)
            return np.ascontiguousarray(ordered)
        mean, std = (np.array(v, np.float32) for v in self._normalization.per_channel())
        normalized = (pixels - mean) / std
        lies = normalized if self._spec.channels_last else normalized.transpose(0, 3, 1, 2)
        return np.ascontiguousarray(lies, dtype=np.float32)


def calibrated_size(model: OnnxModel) -> tuple[int, int]:
    """Height and width of the images that a model is calibrated with.

    Raises:
        EngineError: it does not take one image of a fixed size.
    """
    is_rgb = len(model.inputs) == 1 and model.inputs[0].item_shape[:1] == (3,)
    if not is_rgb or model.input_size is None:
        raise EngineError(
            f"{model.path} cannot be calibrated with images: it must take one image of a fixed "
            f"size, and what it takes is {', '.join(map(str, model.inputs))}; in a TOML file max "
            'names the size, and model::layout = "nhwc" channels that come last'
        )
    return model.input_size


def _why_bad(path: Path) -> str:
    """Why an image cannot be used; "" where it can."""
    try:
        _decode(path)
    except ValueError as error:
        return str(error)
    return ""


def _decode(path: Path) -> npt.NDArray[np.uint8]:
    """The image in B, G, R order; ValueError says why it is none."""
    try:
        encoded = np.frombuffer(read_bounded(path, _MAX_FILE_BYTES), np.uint8)
    except UnreadableFileError as error:
        raise ValueError(str(error)) from error
    try:
        image = cv2.imdecode(encoded, cv2.IMREAD_COLOR) if encoded.size else None
    except cv2.error as error:
        # For more pixels than it decodes here: see service.images.limit.
        raise ValueError(f"OpenCV refuses it: {error.err}") from error
    if image is None:
        raise ValueError("it cannot be decoded: it is no image, truncated or damaged")
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
