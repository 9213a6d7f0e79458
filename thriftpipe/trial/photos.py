"""The images of a trial: those that the service decodes, and why it refuses the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.cache.bounded_file import UnreadableFileError, read_bounded
from interfaces.service import MAX_FRAME_BYTES
from pipeline.image_files import image_files
from service.errors import ConfigurationError
from service.handlers.interface import ImageFailure
from service.images.cost import USUAL_MOST_WORK
from service.images.decoding import decode_bgr
from service.images.limit import ImageLimit

MOST_IMAGES = 1000
"""Images of a folder that are looked at."""


@dataclass(frozen=True)
class Photos:
    """The images of a folder.

    Attributes:
        usable: those that the service decodes.
        refused: the others, each with the reason.
        left_out: how many were not looked at.
    """

    usable: Sequence[Path]
    refused: Sequence[tuple[Path, str]]
    left_out: int


def look_through(folder: Path) -> Photos:
    """Decode the images of a folder as the service would.

    Raises:
        ConfigurationError: there is no such folder, or no image in it that can be used.
    """
    if not folder.is_dir():
        image_files([folder])  # says what is there instead
        raise ConfigurationError(f"--images: {folder} is a file; name the folder that it is in")
    found = image_files([folder], recursive=False)
    limit = ImageLimit(USUAL_MOST_WORK)
    usable, refused = [], []
    for path in found[:MOST_IMAGES]:
        if reason := _why_refused(path, limit):
            refused.append((path, reason))
        else:
            usable.append(path)
    if not usable:
        reasons = "; ".join(f"{path.name}: {reason}" for path, reason in refused[:3])
        raise ConfigurationError(f"--images: no image in {folder} can be used: {reasons}")
    return Photos(usable, refused, len(found) - len(usable) - len(refused))


def _why_refused(path: Path, limit: ImageLimit) -> str:
    """Why the service refuses an image; "" where it does not."""
    try:
        data = read_bounded(path, MAX_FRAME_BYTES)
        if failure := limit.failure(data):
            return str(failure)
        decode_bgr(data)
    except (UnreadableFileError, ImageFailure) as error:
        return str(error)
    return ""


def evenly(paths: Sequence[Path], most: int) -> list[Path]:
    """At most so many of the paths, from first to last."""
    count = min(len(paths), most)
    return [paths[index * len(paths) // count] for index in range(count)]
