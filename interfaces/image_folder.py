"""Images that a command is given, files and folders of them: none is left out without a word."""

from __future__ import annotations

import mimetypes
import os
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from interfaces.error_text import printable
from interfaces.image_formats import DEFAULT_FORMATS, FORMATS, IMAGE_SUFFIXES, image_format, is_heic

SKIP_BAD_IMAGES = "skip_bad_images"
"""The option that goes on without images that cannot be used."""
SKIP_BAD_IMAGES_HELP = "go on without images that cannot be used, and say which"
# As many as an image format needs to be known.
_START_BYTES = 32
_MOST_NAMES = 3


@dataclass(frozen=True)
class FoundImages:
    """What is in files and folders.

    Attributes:
        usable: the images, in order.
        bad: why each of the other images cannot be used.
        others: what else is in the folders: files that are no images, and folders.
    """

    usable: Sequence[Path]
    bad: Mapping[Path, str]
    others: Sequence[Path] = ()

    def problems(self) -> list[str]:
        """A line for each image that cannot be used."""
        lines = ((printable(str(path)), reason) for path, reason in self.bad.items())
        return [reason if name in reason else f"{name}: {reason}" for name, reason in lines]

    def settle(
        self,
        error: Callable[[str], Exception],
        *,
        skip_bad: bool,
        tell: Callable[[str], None],
        option: str = SKIP_BAD_IMAGES,
        in_one_line: bool = False,
    ) -> None:
        """Tell what is left out and what cannot be used; refuse the latter, or skip it.

        Args:
            error: makes what is raised where images cannot be used.
            skip_bad: whether to go on without them.
            tell: called with each line.
            option: the one that goes on without them, as it is spelled.
            in_one_line: whether the images that cannot be used are not told each in a line of its
                own, but behind what is raised or told of all, as a log needs it.
        """
        problems = self.problems()
        behind = f": {'; '.join(problems)}" if in_one_line else ""
        for line in [*filter(None, [self.left_out()]), *([] if in_one_line else problems)]:
            tell(line)
        if not problems:
            return
        count = f"{len(self.bad)} of {len(self.bad) + len(self.usable)} images"
        if not skip_bad:
            raise error(
                f"{count} cannot be used; remove them, or go on without them with "
                f"--{option}{behind}"
            )
        tell(f"skipping {count}{behind}")

    def left_out(self) -> str:
        """What is no image, in one line; "" where all are."""
        if not self.others:
            return ""
        names = [printable(str(path)) for path in self.others[:_MOST_NAMES]]
        more = len(self.others) - len(names)
        return f"left out, as no images: {', '.join(names)}" + (f" and {more} more" if more else "")


def find_images(
    places: Iterable[Path],
    why_bad: Callable[[Path], str],
    *,
    recursive: bool = False,
    threads: int = 1,
    checked: Callable[[int, int], None] = lambda *_: None,
) -> FoundImages:
    """The images in files and folders.

    Args:
        places: files, which are images whatever they are called, and folders, whose files are
            images if they begin like one or are called one.
        why_bad: why a regular file, of more than no bytes, is of no use; "" where it is.
        recursive: whether folders in folders are looked into.
        threads: that call `why_bad`.
        checked: called in this thread after each candidate with how many were looked at, and how
            many there are.
    """
    candidates: list[Path] = []
    others: list[Path] = []
    bad: dict[Path, str] = {}
    for place in places:
        if not place.is_dir():
            candidates.append(place)
            continue
        try:
            entries = _entries(place, recursive=recursive)
        except OSError as error:
            bad[place] = f"cannot be read: {error.strerror or error}"
            continue
        for path in entries:
            (candidates if _may_be_image(path) else others).append(path)
    with ThreadPoolExecutor(threads) as pool:
        reasons = []
        for reason in pool.map(lambda path: why_unreadable(path) or why_bad(path), candidates):
            reasons.append(reason)
            checked(len(reasons), len(candidates))
    found = zip(candidates, reasons, strict=True)
    bad |= {path: " ".join(reason.split()) for path, reason in found if reason}
    return FoundImages([path for path in candidates if path not in bad], bad, others)


def evenly(paths: Sequence[Path], most: int) -> list[Path]:
    """At most so many of the paths, evenly from first to last."""
    count = min(len(paths), most)
    return [paths[index * len(paths) // count] for index in range(count)]


def why_unreadable(path: Path) -> str:
    """Why there is nothing to read; "" where there is."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            return "it is no regular file"
        if not status.st_size:
            return "it is empty"
        return "" if os.access(path, os.R_OK) else "cannot be read: permission denied"
    except (OSError, ValueError) as error:
        return f"cannot be read: {getattr(error, 'strerror', None) or error}"


def why_no_format(data: bytes, formats: Iterable[str] = DEFAULT_FORMATS) -> str:
    """Why encoded data is of no format that is decoded; "" where it is.

    Args:
        data: the file's content, or its beginning.
        formats: names of those that are decoded.
    """
    allowed = tuple(formats)
    found = image_format(data)
    if found is None and is_heic(data):
        return "it is heic, which nothing here decodes; convert it to jpeg"
    if found is None:
        return f"no image of a known format: {', '.join(FORMATS)}"
    if found.name not in allowed:
        return f"it is {found.name}; the service decodes {', '.join(allowed)} by default"
    return ""


def _entries(folder: Path, *, recursive: bool) -> list[Path]:
    entries = sorted(folder.rglob("*") if recursive else folder.iterdir())
    return [path for path in entries if not (recursive and path.is_dir())]


def _may_be_image(path: Path) -> bool:
    """Whether a file begins like an image, or is called one, so that it should be one."""
    if path.is_dir():
        return False
    kind = mimetypes.guess_type(path.name)[0] or ""
    if kind.startswith("image/") or path.suffix.lower() in IMAGE_SUFFIXES:
        return True
    # A named pipe is not opened: that would wait for its writer.
    if why_unreadable(path):
        return False
    try:
        with path.open("rb") as file:
            start = file.read(_START_BYTES)
        return image_format(start) is not None or is_heic(start)
    except OSError:
        return False
