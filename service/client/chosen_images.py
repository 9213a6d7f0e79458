"""The images that a command line names: files, folders of them, and standard input."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from interfaces.image_folder import SKIP_BAD_IMAGES, FoundImages, find_images, why_no_format
from interfaces.image_formats import FORMATS, image_format
from interfaces.options import dashed
from interfaces.service import MAX_FRAME_BYTES
from service.client.errors import InvalidImageError
from service.client.images import read_image
from service.images.whole import why_cut_off

STDIN = "-"
"""The name of the image that standard input gives."""


class UnusableInputError(Exception):
    """Why nothing can be classified: images of no use, none, or a terminal as standard input."""


def chosen_images(
    names: Sequence[str],
    *,
    skip_bad: bool,
    tell: Callable[[str], None],
    option: str = dashed(SKIP_BAD_IMAGES),
) -> list[tuple[str, Path | bytes]]:
    """The images by their names, with those of a folder in the order of their names.

    Args:
        names: files, folders, and `STDIN`.
        skip_bad: whether images that cannot be used are left out, and not a mistake.
        tell: called with each line about what cannot be used or is left out.
        option: the command's option for `skip_bad`.

    Raises:
        UnusableInputError: see there.
    """
    images: list[tuple[str, Path | bytes]] = []
    usable: list[Path] = []
    bad: dict[Path, str] = {}
    others: list[Path] = []
    for name in names:
        if name == STDIN:
            images.append((name, _read_stdin()))
            continue
        found = find_images([Path(name)], _why_bad)
        images += [(str(path), path) for path in found.usable]
        usable += found.usable
        bad.update(found.bad)
        others += found.others
    every = FoundImages(usable, bad, others)
    every.settle(UnusableInputError, skip_bad=skip_bad, tell=tell, option=option)
    if not images:
        raise UnusableInputError(f"no images in {', '.join(names)}")
    return images


def _read_stdin() -> bytes:
    if sys.stdin is None or sys.stdin.isatty():
        raise UnusableInputError(
            "- is an image on standard input, which is a terminal here; give it a file: "
            "classify - < photo.jpg"
        )
    return sys.stdin.buffer.read(MAX_FRAME_BYTES + 1)


def _why_bad(path: Path) -> str:
    """Why an image would fail at any server, as far as its bytes tell undecoded; "" if none."""
    try:
        data = read_image(path, MAX_FRAME_BYTES)
    except InvalidImageError as error:
        return str(error)
    found = image_format(data)
    return why_no_format(data, FORMATS) if found is None else why_cut_off(data, found)
