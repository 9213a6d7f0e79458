"""What may be classified, as the bytes that go over the wire."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, Union

from engine.cache.bounded_file import kind_of
from service.client.errors import InvalidImageError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Image: TypeAlias = Union[str, Path, bytes, bytearray, memoryview, "npt.NDArray[np.uint8]"]
"""A file, an encoded image (JPEG, PNG, ...), or pixels of shape (height, width, 3)."""


def image_bytes(image: Image, channel_order: str, max_bytes: int) -> bytes:
    """The encoded image.

    Args:
        image: see `Image`.
        channel_order: "bgr" (OpenCV's) or "rgb": the order of an array's channels.
        max_bytes: size of the largest image.

    Raises:
        InvalidImageError: the file cannot be read or is none, or the image is too large or empty.
        TypeError: it is nothing of these.
        ValueError: an array of another shape or type, or an unknown order.
    """
    if isinstance(image, (str, Path)):
        return read_image(Path(image), max_bytes)
    if isinstance(image, (bytes, bytearray, memoryview)):
        encoded = bytes(image)
    else:
        # OpenCV is loaded only by those who have arrays.
        from service.client.pixels import encode_png

        encoded = encode_png(image, channel_order)
    if not encoded:
        raise InvalidImageError("the image has no bytes")
    if len(encoded) > max_bytes:
        raise InvalidImageError(f"the image has {len(encoded)} bytes, {_allowed(max_bytes)}")
    return encoded


def read_image(path: Path, max_bytes: int) -> bytes:
    """The bytes of an image file, whose size is looked at before it is read.

    Raises:
        InvalidImageError: it cannot be read, is no regular file, is empty, or is too large.
    """
    try:
        # Not before it is known to be a file: opening a pipe would wait for its writer.
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise InvalidImageError(f"{path} is {kind_of(status.st_mode)}, a file is needed")
        with path.open("rb") as file:
            # It may grow meanwhile; what it had is not relied on.
            content = file.read(max_bytes + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InvalidImageError(f"cannot read {path}: {reason}") from error
    if not content:
        raise InvalidImageError(f"{path} is empty")
    if len(content) > max_bytes:
        size_bytes = max(status.st_size, len(content))
        raise InvalidImageError(f"{path} has {size_bytes} bytes, {_allowed(max_bytes)}")
    return content


def calls_of_bounded_size(
    sizes_bytes: Sequence[int], max_images: int, max_bytes: int
) -> Iterator[range]:
    """Divide images into calls, in their order.

    Args:
        sizes_bytes: of each image.
        max_images: images in a call.
        max_bytes: size of a call's images together; a larger one goes alone.

    Yields:
        The positions of each call's images.
    """
    start, total_bytes = 0, 0
    for index, size_bytes in enumerate(sizes_bytes):
        if index > start and (index - start == max_images or total_bytes + size_bytes > max_bytes):
            yield range(start, index)
            start, total_bytes = index, 0
        total_bytes += size_bytes
    if start < len(sizes_bytes):
        yield range(start, len(sizes_bytes))


def _allowed(max_bytes: int) -> str:
    return f"max_request_bytes allows {max_bytes}"
