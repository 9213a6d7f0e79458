"""What mutations start from: image files of several kinds, and valid calls of every method."""

from __future__ import annotations

import io

import cv2
import numpy as np
from PIL import Image

from tests.robustness import wire
from tests.robustness.colour_model import LABELS, encoded, pixels_of

_WIDTH, _HEIGHT = 40, 28


def seed_images() -> list[bytes]:
    """Small image files: the kinds of JPEG and PNG there are, and other formats."""
    pixels = pixels_of("red", _WIDTH, _HEIGHT)
    picture = Image.fromarray(np.ascontiguousarray(pixels[:, :, ::-1]).astype(np.uint8))
    grey = picture.convert("L")
    images = [encoded(label, _WIDTH, _HEIGHT) for label in LABELS]
    images += [encoded("green", _WIDTH, _HEIGHT, suffix) for suffix in (".png", ".bmp", ".webp")]
    images += [
        _jpeg(pixels, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        _jpeg(pixels, cv2.IMWRITE_JPEG_OPTIMIZE, 1),
        _jpeg(pixels, cv2.IMWRITE_JPEG_RST_INTERVAL, 2),
        cv2.imencode(".png", pixels.astype(np.uint16) * 257)[1].tobytes(),
        *(
            _saved(image, format_, **options)
            for image, format_, options in (
                (grey, "JPEG", {}),
                (picture.convert("CMYK"), "JPEG", {}),
                (grey, "PNG", {}),
                (picture.convert("P"), "PNG", {}),
                (picture.convert("RGBA"), "PNG", {}),
                (picture.convert("1"), "PNG", {}),
                (picture, "TIFF", {}),
                (picture, "GIF", {}),
                (picture, "JPEG", {"subsampling": 0, "quality": 30}),
                (picture, "JPEG", {"exif": _rotated()}),
            )
        ),
    ]
    return images


def _jpeg(pixels: object, option: int, value: int) -> bytes:
    return cv2.imencode(".jpg", pixels, [option, value])[1].tobytes()  # type: ignore[call-overload, no-any-return]


def _saved(image: Image.Image, format_: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format_, **options)
    return file.getvalue()


def _rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: a quarter turn
    return exif.tobytes()


def seed_messages(images: list[bytes]) -> list[bytes]:
    """Valid calls of every method without a frame."""
    few = [(b"uuid-%d" % number, data) for number, data in enumerate(images[:3])]
    return [
        wire.call(b"ping", 1),
        wire.call(b"server_info", 2),
        wire.call(b"health", 3),
        wire.infer_batch(4, b"uuid", images[0]),
        wire.infer_images(5, few),
        wire.infer_images(6, few[:1], top_k=3, timeout_ms=1000),
        wire.infer_images(7, []),
        wire.call(b"infer_images", 8, _nested(8)),
        wire.call(b"no_such_method", 9),
    ]


def _nested(depth: int) -> bytes:
    """An unknown field of structs within structs."""
    return b"\x0c\x00\x63" * depth + b"\x08\x00\x01\x00\x00\x00\x01" + b"\x00" * depth
