"""The images of a trial: those that the service decodes, and why it refuses the others."""

from __future__ import annotations

from itertools import count
from pathlib import Path

from engine.cache.bounded_file import UnreadableFileError, read_bounded, why_no_folder
from engine.cpu.cores import available_cores
from interfaces.image_folder import FoundImages, find_images, why_no_format
from interfaces.service import MAX_FRAME_BYTES
from service.errors import ConfigurationError
from service.handlers.outcomes import ImageFailure
from service.images.cost import USUAL_MOST_WORK
from service.images.decoding import decode_bgr
from service.images.limit import ImageLimit

MOST_DECODED = 1000
"""Images that are decoded; of further ones only the headers are read."""
_SHOWN_REASONS = 3


def look_through(folder: Path) -> FoundImages:
    """Decode the images of a folder as the service would.

    Raises:
        ConfigurationError: there is no such folder, or no image in it that can be used.
    """
    if reason := why_no_folder(folder):
        raise ConfigurationError(f"--images: {reason}")
    limit, number = ImageLimit(USUAL_MOST_WORK), count()
    found = find_images(
        [folder],
        lambda path: _why_refused(path, limit, decodes=next(number) < MOST_DECODED),
        threads=available_cores(),
    )
    if not found.usable:
        reasons = "; ".join(found.problems()[:_SHOWN_REASONS])
        raise ConfigurationError(
            f"--images: no image in {folder} can be used{f': {reasons}' if reasons else ''}"
        )
    return found


def _why_refused(path: Path, limit: ImageLimit, *, decodes: bool) -> str:
    """Why the service refuses an image; "" where it does not."""
    try:
        data = read_bounded(path, MAX_FRAME_BYTES)
        if reason := why_no_format(data):
            return reason
        if failure := limit.failure(data):
            return str(failure)
        if decodes:
            decode_bgr(data)
    except (UnreadableFileError, ImageFailure) as error:
        return str(error)
    return ""
