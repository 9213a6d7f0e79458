"""What decoding an image costs, from its header: work and memory, before anything is decoded."""

from __future__ import annotations

import math
from typing import NamedTuple

from interfaces.image_formats import ImageFormat, image_format
from interfaces.service import MAX_IMAGE_PIXELS
from service.handlers.outcomes import InvalidImageError
from service.images.header import size_of
from service.images.jpeg import JpegHeader, read_jpeg_header, scanned_samples
from service.images.png import is_stored_again, read_png
from service.images.webp import read_webp
from service.images.webp_lossless import HuffmanGroups, most_huffman_groups

# A decoder keeps the coefficients of a JPEG with several scans: two bytes for each sample, besides
# the three of the pixel. CPU time: of a pixel, of each sample that a scan goes through, and of each
# encoded byte.
_COEFFICIENT_BYTES, _PIXEL_BYTES = 2, 3
_SCANS_WORK, _SCANS_WORK_OF_SAMPLE, _SCANS_WORK_OF_BYTE = 0.36, 0.033, 2.5
# PNG: of a pixel, of each of its bytes once decompressed, and of a pixel in passes.
_PNG_WORK, _PNG_WORK_OF_BYTE, _PNG_WORK_OF_PASSES = 0.5, 0.73, 0.8
# Of each byte that is stored again, with what a growing array takes beyond its content.
_PNG_STORED_BYTES = 1.3
# WebP: of a pixel and of a byte. Frames of an animation are laid upon a canvas, and that upon
# another.
_LOSSY_WORK, _LOSSY_WORK_OF_BYTE = 0.85, 5.0
_LOSSLESS_WORK, _LOSSLESS_WORK_OF_BYTE, _LOSSLESS_MEMORY_BYTES = 1.5, 1.5, 7.5
_ALPHA_WORK, _ALPHA_MEMORY_BYTES = 2.0, 9.5
_ANIMATED_MEMORY_BYTES = 12.0
# Of each symbol that is read to know how many tables there are, here and before it is decoded.
_LOSSLESS_WORK_OF_STEP = 250
# AVIF: the alpha channel is an image of its own, as large as the other.
_AVIF_ALPHA, _AVIF_START_BYTES = b"auxiliary:alpha", 65_536
# Of whatever an image is: the decoder itself. What is encoded may be copied once.
_DECODER_BYTES = 1 << 20


# What work that counts as one pixel takes at most.
_MOST_BYTES_OF_WORK = 7
USUAL_MOST_WORK = MAX_IMAGE_PIXELS


def most_work(max_pixels: int) -> int:
    """How much work an image may be where it may have `max_pixels`.

    A lower limit of pixels is one for all formats alike, a higher one allows more work.
    """
    return max(max_pixels, USUAL_MOST_WORK)


def largest_image_bytes(max_pixels: int) -> int:
    """Memory that is enough for any image that is let through."""
    return _MOST_BYTES_OF_WORK * most_work(max_pixels) + _DECODER_BYTES


class ImageCost(NamedTuple):
    """CPU time and memory that decoding an image takes, by its header.

    Attributes:
        format: its format.
        width: in pixels.
        height: in pixels.
        work: CPU time, as pixels of the costliest plain JPEG that take the same.
        memory_bytes: of its pixels, at the peak.
        why: what makes it cost more than its pixels say; "" where nothing does.
    """

    format: ImageFormat
    width: int
    height: int
    work: float
    memory_bytes: int
    why: str


class _Rates(NamedTuple):
    """The costs of one image by their causes.

    Attributes:
        work: of a pixel.
        work_of_byte: of an encoded byte.
        memory_bytes: of a pixel, at the peak.
        why: as in `ImageCost`.
        groups: the Huffman groups of a lossless stream.
    """

    work: float
    work_of_byte: float
    memory_bytes: float
    why: str = ""
    groups: HuffmanGroups = HuffmanGroups(0, 0, 0)


# Of images that calls hold, by identity: a header is read once, in whichever thread, or node, the
# image is decoded then.
_known: dict[int, ImageCost] = {}


def remember_cost(data: bytes, cost: ImageCost) -> None:
    """Give that cost for `data` until `forget_cost`, which comes before `data` is let go."""
    _known[id(data)] = cost


def forget_cost(data: bytes) -> None:
    """Read the header of `data` from then on."""
    _known.pop(id(data), None)


def known_cost(data: object) -> ImageCost | None:
    """What has been remembered of this very object."""
    return _known.get(id(data))


_PLAIN_JPEG = _Rates(1.0, 0.0, 2.0 * _PIXEL_BYTES)


def image_cost(data: bytes | memoryview, max_pixels: float = math.inf) -> ImageCost | None:
    """What decoding costs, or None if it has the signature of no known format.

    It takes microseconds; for WebPs and for JPEGs of several scans as long as a search through the
    file, for PNGs of many chunks as long as a walk through them, and for lossless WebPs a
    microsecond more for each 32 bytes, 33 ms at most.

    Args:
        data: the encoded image.
        max_pixels: of one with more nothing else is read.

    Raises:
        InvalidImageError: it has too many pixels, is damaged in its header, or of a kind that is
            not decoded.
    """
    found = image_format(data)
    if found is None:
        return None
    jpeg = read_jpeg_header(data) if found.name == "jpeg" else None
    size = size_of(data, found) if jpeg is None else (jpeg.width, jpeg.height)
    if size is None or size[0] <= 0 or size[1] <= 0:
        raise InvalidImageError(
            f"the {found.name} image is damaged: its header is cut short, or does not say how "
            "large it is"
        )
    pixels = size[0] * size[1]
    if pixels > max_pixels:
        raise InvalidImageError(
            f"the image is {size[0]} x {size[1]}, which are {pixels} pixels; --max-image-pixels "
            f"allows {max_pixels}"
        )
    if jpeg is not None:
        rates = _jpeg(data, jpeg)
    elif found.name == "png":
        rates = _png(data)
    elif found.name == "webp":
        rates = _webp(bytes(data))
    else:
        rates = _Rates(found.work, found.work_of_byte, found.memory_bytes)
        if found.name == "avif" and _AVIF_ALPHA in bytes(data[:_AVIF_START_BYTES]):
            rates = _Rates(
                2 * found.work, found.work_of_byte, 2 * found.memory_bytes, "an alpha channel"
            )
    why, groups = rates.why, rates.groups
    work_of_pixels, work_of_data = rates.work * pixels, rates.work_of_byte * len(data)
    if work_of_data > work_of_pixels:
        why = f"{len(data)} encoded bytes"
    work_of_tables = (
        groups.memory_bytes / _MOST_BYTES_OF_WORK + _LOSSLESS_WORK_OF_STEP * groups.steps
    )
    if work_of_tables > work_of_pixels + work_of_data:
        why = f"up to {groups.count} groups of Huffman tables"
    pixels_bytes = int(rates.memory_bytes * pixels)
    return ImageCost(
        found,
        *size,
        # What brings next to nothing, such as a few scans, takes its memory all the same.
        max(work_of_pixels + work_of_data, pixels_bytes / _MOST_BYTES_OF_WORK) + work_of_tables,
        pixels_bytes + groups.memory_bytes + len(data) + _DECODER_BYTES,
        why,
    )


def _jpeg(data: bytes | memoryview, header: JpegHeader) -> _Rates:
    if not header.common:
        raise InvalidImageError(
            "the JPEG is arithmetic-coded, lossless or hierarchical; only baseline, extended and "
            "progressive ones with Huffman coding are decoded; save it again"
        )
    scanned = scanned_samples(data, header)
    if math.isinf(scanned):
        raise InvalidImageError(
            "the JPEG has more than 1000 scans, 8192 markers or 64 KiB of fill bytes; save it again"
        )
    if not scanned:
        return _PLAIN_JPEG
    samples = sum(samples for _, samples in header.samples)
    if not samples:
        raise InvalidImageError(
            "the JPEG is damaged: its header names no component that has samples"
        )
    return _Rates(
        _SCANS_WORK + _SCANS_WORK_OF_SAMPLE * scanned,
        _SCANS_WORK_OF_BYTE,
        max(2.0 * _PIXEL_BYTES, _PIXEL_BYTES + _COEFFICIENT_BYTES * samples),
        f"scans that go {scanned / samples:.3g} times through all of its samples",
    )


def _png(data: bytes | memoryview) -> _Rates:
    png = read_png(data)
    pixel_bytes = png.bits_per_pixel / 8
    work = _PNG_WORK + _PNG_WORK_OF_BYTE * pixel_bytes + _PNG_WORK_OF_PASSES * png.interlaced
    memory_bytes = 2.0 * _PIXEL_BYTES
    if is_stored_again(png):
        memory_bytes += _PNG_STORED_BYTES * pixel_bytes
    passes = ", interlaced" if png.interlaced else ""
    return _Rates(work, 0.0, memory_bytes, f"{png.bits_per_pixel} bits a pixel{passes}")


def _webp(data: bytes) -> _Rates:
    webp = read_webp(data)
    kinds = []
    if webp.lossy_sizes:
        kinds.append(_Rates(_LOSSY_WORK, _LOSSY_WORK_OF_BYTE, 2.0 * _PIXEL_BYTES))
    if webp.lossless:
        kinds.append(
            _Rates(_LOSSLESS_WORK, _LOSSLESS_WORK_OF_BYTE, _LOSSLESS_MEMORY_BYTES, "lossless")
        )
    if webp.alpha:
        kinds.append(_Rates(_ALPHA_WORK, 0.0, _ALPHA_MEMORY_BYTES, "an alpha channel"))
    if webp.animated:
        kinds.append(_Rates(_ALPHA_WORK, 0.0, _ANIMATED_MEMORY_BYTES, "animated"))
    return _Rates(
        max(kind.work for kind in kinds),
        max(kind.work_of_byte for kind in kinds),
        max(kind.memory_bytes for kind in kinds),
        kinds[-1].why,
        most_huffman_groups(data, webp),
    )
