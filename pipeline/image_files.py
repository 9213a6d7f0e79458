"""Finding the images that a command is given: files, and folders of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from engine.cache.bounded_file import UnreadableFileError, read_bounded, why_no_file
from engine.cpu.cores import available_cores
from interfaces.image_folder import SKIP_BAD_IMAGES, evenly, find_images
from interfaces.image_formats import IMAGE_SUFFIXES
from interfaces.options import dashed
from service.errors import ConfigurationError
from service.handlers.outcomes import ImageFailure
from service.images.decoding import decode_bgr
from service.images.limit import ImageLimit

Image: TypeAlias = tuple[str, bytes]
"""A name, and the encoded bytes."""
MOST_IMAGE_BYTES = 100 * 1024 * 1024
"""Of one file."""
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


def usable_images(
    places: Sequence[Path],
    *,
    decodes: bool,
    skip_bad: bool,
    tell: Callable[[str], None],
    recursive: bool = True,
    limit: ImageLimit | None = None,
) -> list[Path]:
    """The images that a pipeline is given, checked before it is loaded.

    Args:
        places: files and folders.
        decodes: whether the pipeline decodes them as images; whatever is named counts otherwise.
        skip_bad: whether images that cannot be used are left out, and not a mistake.
        tell: called with each line about what cannot be used or is left out.
        recursive: whether folders in folders count.
        limit: what decoding one may cost; None for whatever it costs.

    Raises:
        ConfigurationError: images cannot be used, or there is none.
    """
    missing = {it: reason for it in places if not it.is_dir() and (reason := why_no_file(it))}
    found = find_images(
        [place for place in places if place not in missing],
        (lambda path: _why_bad(path, limit)) if decodes else lambda _: "",
        recursive=recursive,
        threads=available_cores(),
    )
    found = replace(found, bad={**missing, **found.bad})
    option = dashed(SKIP_BAD_IMAGES)
    found.settle(ConfigurationError, skip_bad=skip_bad, tell=tell, option=option)
    if not found.usable:
        raise ConfigurationError(f"no images in {', '.join(map(str, places))}")
    return list(found.usable)


def _why_bad(path: Path, limit: ImageLimit | None) -> str:
    """Why an image cannot be decoded, or is not to be; "" where it can."""
    try:
        data = read_bounded(path, MOST_IMAGE_BYTES)
        if limit is not None:
            limit.cost(data)
        decode_bgr(data)
    except (UnreadableFileError, ImageFailure) as error:
        return str(error)
    return ""


def read_images(files: Sequence[Path], most: int = MOST_IMAGES) -> list[Image]:
    """Names and bytes of at most so many of the files, taken evenly from first to last.

    Raises:
        OSError: one cannot be read.
    """
    return [(str(path), path.read_bytes()) for path in evenly(files, most)]
