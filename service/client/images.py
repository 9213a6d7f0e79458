"""What may be classified, as the bytes that go over the wire."""

from __future__ import annotations

import io
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias, Union

from engine.cache.bounded_file import kind_of
from service.client.errors import ClientError, InvalidImageError
from service.client.pixels import encode_array, encode_pillow_image, is_array, is_pillow_image

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL.Image import Image as PillowImage

Image: TypeAlias = Union[
    str, Path, bytes, bytearray, memoryview, IO[bytes], "PillowImage", "npt.NDArray[np.uint8]"
]
"""A file, an encoded image (JPEG, PNG, ...), a binary file object that reads one, or pixels: an
image of Pillow's, or an array of shape (height, width, 3)."""

_ENCODED = (bytes, bytearray, memoryview)


def is_encoded(image: Image) -> bool:
    """Whether its bytes are there already: nothing has to be read or encoded."""
    return isinstance(image, _ENCODED)


def encoded_images(
    images: Iterable[Image], channel_order: str, max_bytes: int
) -> list[bytes | ClientError]:
    """The encoded images, or why there is none; `image_bytes` has the rest."""
    outcomes: list[bytes | ClientError] = []
    for image in images:
        try:
            outcomes.append(image_bytes(image, channel_order, max_bytes))
        except ClientError as error:
            outcomes.append(error)
    return outcomes


def image_bytes(image: Image, channel_order: str, max_bytes: int) -> bytes:
    """The encoded image.

    Args:
        image: see `Image`. A file object is read from where it is to its end, and left open.
        channel_order: "bgr" (OpenCV's) or "rgb": the order of an array's channels.
        max_bytes: size of the largest image.

    Raises:
        InvalidImageError: the file cannot be read or is none, or the image is too large or empty.
        TypeError: it is nothing of these.
        ValueError: an array or an image of another shape or type, or an unknown order.
    """
    if isinstance(image, (str, Path)):
        return read_image(Path(image), max_bytes)
    if isinstance(image, _ENCODED):
        encoded = bytes(image)
    elif is_array(image):
        encoded = encode_array(image, channel_order)
    elif is_pillow_image(image):
        encoded = encode_pillow_image(image)
    elif callable(getattr(image, "read", None)):
        encoded = read_file_object(image, max_bytes)
    else:
        raise TypeError(
            "an image is a path, bytes, a binary file object, a Pillow image or a NumPy array, "
            f"got {type(image).__name__}"
        )
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


def read_file_object(file: Any, max_bytes: int) -> bytes:
    """What a file object reads until its end; pipes and responses give it piece by piece.

    Raises:
        InvalidImageError: it cannot be read, or there is more than `max_bytes`.
        TypeError: it reads no bytes.
    """
    if isinstance(file, io.TextIOBase):
        raise TypeError(f"{_name_of(file)} is open as text; open it in binary mode, 'rb'")
    content = bytearray()
    while len(content) <= max_bytes:
        try:
            piece = file.read(max_bytes + 1 - len(content))
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise InvalidImageError(f"cannot read {_name_of(file)}: {reason}") from error
        if not isinstance(piece, _ENCODED):
            close = getattr(piece, "close", None)
            if callable(close):
                # A coroutine, which would complain that it was not awaited.
                close()
            raise TypeError(
                f"{_name_of(file)}: read() gave {type(piece).__name__}, bytes are needed; await "
                "what is asynchronous"
            )
        if not piece:
            return bytes(content)
        content += piece
    raise InvalidImageError(f"{_name_of(file)} has more bytes than {_allowed(max_bytes)}")


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


def _name_of(file: Any) -> str:
    name = getattr(file, "name", None)
    return name if isinstance(name, str) else f"the file object ({type(file).__name__})"


def _allowed(max_bytes: int) -> str:
    return f"max_request_bytes allows {max_bytes}"
