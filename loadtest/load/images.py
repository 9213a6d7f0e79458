"""The images that the load test sends: a deterministic photo set, or any folder."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from interfaces.error_text import printable
from interfaces.extras import install_command
from interfaces.image_folder import find_images, why_no_format
from interfaces.image_formats import FORMATS
from interfaces.service import MAX_FRAME_BYTES, MAX_IMAGE_PIXELS
from interfaces.sizes import size_text
from loadtest.errors import LoadTestError, UsageError
from loadtest.records.machine import usable_cores

Pixels = npt.NDArray[np.integer[Any] | np.floating[Any]]

DEFAULT_FOLDER = Path(".bench/images")
JPEG_QUALITY = 90

# Photographs that scikit-image and scikit-learn ship inside their wheels.
_SOURCES = {
    "chelsea": ("skimage", "data/chelsea.png"),
    "coffee": ("skimage", "data/coffee.png"),
    "camera": ("skimage", "data/camera.png"),
    "motorcycle": ("skimage", "data/motorcycle_left.png"),
    "astronaut": ("skimage", "data/astronaut.png"),
    "rocket": ("skimage", "data/rocket.jpg"),
    "china": ("sklearn", "datasets/images/china.jpg"),
    "flower": ("sklearn", "datasets/images/flower.jpg"),
}

# (source, long side in pixels, portrait): photographs as phones and web pages have them. Their
# mean size is 70 to 100 KiB, like the photos of the published comparison's kind of workload, so
# that decoding takes a similar share of a request.
_RECIPES = (
    *((source, 500, False) for source in _SOURCES),
    *((source, 640, False) for source in _SOURCES),
    ("chelsea", 1280, False),
    ("coffee", 1280, False),
    ("flower", 1280, False),
    ("motorcycle", 741, False),
    ("astronaut", 427, True),
    ("china", 427, True),
    ("rocket", 427, True),
    ("coffee", 399, True),
)


@dataclass(frozen=True)
class LoadImage:
    """An image that clients send, and how result files name it.

    Attributes:
        path: where it lies.
        name: its file name, printable, which stands for it in requests and in every result file.
        sha256: hash of the file's bytes.
        size_bytes: length of the file.
        width: pixels; 0 where it is no image.
        height: pixels; 0 where it is no image.
    """

    path: Path
    name: str
    sha256: str
    size_bytes: int
    width: int
    height: int

    def as_record(self) -> dict[str, str | int]:
        """What result files say of it: everything but the path."""
        record = asdict(self)
        del record["path"]
        return record


def _tell(line: str) -> None:
    print(line, file=sys.stderr)


def read_folder(
    folder: Path,
    *,
    skip_bad: bool = False,
    formats: Collection[str] = FORMATS,
    tell: Callable[[str], None] = _tell,
    checked: Callable[[int, int], None] = lambda *_: None,
) -> list[LoadImage]:
    """The images of a folder, by name.

    Args:
        folder: it; folders in it are not looked into.
        skip_bad: whether images that cannot be used are left out, and not a mistake.
        formats: names of those that the servers decode.
        tell: called with each line about what cannot be used or is left out.
        checked: called with how many images were decoded, and how many there are.

    Raises:
        UsageError: the folder is missing or has no image, or images cannot be used.
    """
    if not folder.is_dir():
        raise UsageError(
            f"image folder {str(folder)!r} does not exist; name one with --img_dir, or make one "
            f"with `python -m loadtest images --output_dir {folder}`"
        )
    images: dict[Path, LoadImage] = {}

    def why_bad(path: Path) -> str:
        try:
            images[path] = _read_image(path, formats)
        except ValueError as error:
            return str(error)
        return ""

    found = find_images([folder], why_bad, threads=usable_cores(), checked=checked)
    if folder == DEFAULT_FOLDER:
        # Its manifest is meant to be there.
        found = replace(found, others=())
    found.settle(UsageError, skip_bad=skip_bad, tell=tell)
    if not found.usable:
        raise UsageError(f"image folder {str(folder)!r} holds no image that can be used")
    return [images[path] for path in found.usable]


def _read_image(path: Path, formats: Collection[str] = FORMATS) -> LoadImage:
    """The image in a file; ValueError says why it is of no use."""
    # Looked at before it is read: what is called an image may be of any length.
    if (size_bytes := path.stat().st_size) > MAX_FRAME_BYTES:
        raise ValueError(f"it has {size_bytes} bytes, and a message {MAX_FRAME_BYTES} at most")
    data = path.read_bytes()
    if reason := why_no_format(data, formats):
        raise ValueError(reason)
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        # For more pixels than it decodes at all.
        raise ValueError(f"OpenCV refuses it: {error.err}") from error
    if pixels is None:
        raise ValueError("it cannot be decoded: it is truncated or damaged")
    if (count := pixels.shape[0] * pixels.shape[1]) > MAX_IMAGE_PIXELS:
        raise ValueError(f"it has {count} pixels, and the service decodes {MAX_IMAGE_PIXELS}")
    return LoadImage(
        path=path,
        name=printable(path.name),
        sha256=hashlib.sha256(data).hexdigest(),
        size_bytes=len(data),
        width=int(pixels.shape[1]),
        height=int(pixels.shape[0]),
    )


def default_images() -> list[LoadImage]:
    """The photo set, made on first use."""
    if not (DEFAULT_FOLDER / "manifest.json").is_file():
        write_photo_set(DEFAULT_FOLDER)
    return read_folder(DEFAULT_FOLDER)


def write_photo_set(folder: Path) -> list[LoadImage]:
    """Write the photo set and its manifest.json into `folder`.

    The same library versions give the same bytes.

    Raises:
        LoadTestError: a photograph's package is not installed, or the folder is not writable.
    """
    names = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for source, long_side, portrait in _RECIPES:
            pixels = _resize(_read_source(source), long_side, portrait)
            name = f"{source}-{pixels.shape[1]}x{pixels.shape[0]}.jpg"
            _, encoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
            (folder / name).write_bytes(encoded.tobytes())
            names.append(name)
        images = [_read_image(folder / name) for name in sorted(names)]
        manifest = [image.as_record() for image in images]
        # Last, because its presence says that the set is complete.
        (folder / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    except OSError as error:
        raise LoadTestError(
            f"cannot write images into {str(folder)!r}: {error.strerror or error}"
        ) from error
    return images


def _read_source(name: str) -> Pixels:
    package, file = _SOURCES[name]
    # find_spec finds the files without importing the package, which would take a second.
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise LoadTestError(
            f"the photo set needs the package {package!r}: {install_command('bench')}, or name a "
            "folder of your own with --img_dir"
        )
    path = Path(spec.submodule_search_locations[0]) / file
    pixels = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if pixels is None:
        raise LoadTestError(f"package {package!r} has no readable {file}; reinstall it")
    return pixels


def _resize(pixels: Pixels, long_side: int, portrait: bool) -> Pixels:
    """Scale to `long_side` pixels; a portrait is the middle of the picture, 2 wide to 3 high."""
    height, width = pixels.shape[:2]
    if portrait:
        cropped_width = height * 2 // 3
        left = (width - cropped_width) // 2
        pixels, width = pixels[:, left : left + cropped_width], cropped_width
    scale = long_side / max(width, height)
    size = (round(width * scale), round(height * scale))
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)


def print_table(images: list[LoadImage]) -> None:
    """Print names, sizes and the mean size."""
    print(f"{'image':<28}{'pixels':>12}{'size':>12}")
    for image in images:
        print(
            f"{image.name:<28}{f'{image.width}x{image.height}':>12}{size_text(image.size_bytes):>12}"
        )
    mean_bytes = sum(image.size_bytes for image in images) / len(images)
    print(f"{len(images)} photographs, {size_text(mean_bytes)} in the mean")
