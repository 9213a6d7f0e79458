"""Finding the images that a command is given: files, and folders of them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TypeAlias

from engine.cache.bounded_file import why_no_file
from service.errors import ConfigurationError
from service.images.formats import IMAGE_SUFFIXES

Image: TypeAlias = tuple[str, bytes]
"""A name, and the encoded bytes."""
MOST_IMAGES = 1000
"""Images of a folder that are kept in memory; of more, so many evenly from first to last."""


def image_files(
    places: Sequence[Path],
    *,
    recursive: bool = True,
    suffixes: Collection[str] = IMAGE_SUFFIXES,
) -> list[Path]:
    """Files as they are named, and the images of folders, sorted by name.

    Args:
        places: files and folders.
        recursive: whether folders in folders count.
        suffixes: what names of images in folders end in, with the dot; case does not matter.

    Raises:
        ConfigurationError: a place is not there, a file cannot be read, or a folder has no image.
    """
    wanted = {suffix.lower() for suffix in suffixes}
    found: list[Path] = []
    for place in places:
        if not place.is_dir():
            if reason := why_no_file(place):
                raise ConfigurationError(reason)
            found.append(place)
            continue
        names = sorted(place.rglob("*") if recursive else place.iterdir())
        images = [name for name in names if name.suffix.lower() in wanted and name.is_file()]
        if not images:
            raise ConfigurationError(f"no images in {place}: none of {', '.join(sorted(wanted))}")
        found += images
    return found


def read_images(files: Sequence[Path], most: int = MOST_IMAGES) -> list[Image]:
    """Names and bytes of at most so many of the files, taken evenly from first to last.

    Raises:
        OSError: one cannot be read.
    """
    count = min(len(files), most)
    chosen = [files[index * len(files) // count] for index in range(count)]
    return [(str(path), path.read_bytes()) for path in chosen]
