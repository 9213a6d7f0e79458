"""The image formats that OpenCV decodes here: how each is recognised, and what decoding it costs.

This table is the only place that knows the formats. Costs were measured (results/image-costs):
memory is the peak of `cv2.imdecode`, with the decoder's own buffers and the copy that becomes the
NumPy array; work is CPU time beside that of the costliest plain JPEG, one without subsampling,
whose pixel counts as 1. What depends on more than the format is in `service/images/cost.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

DEFAULT_FORMATS = ("jpeg", "png", "webp", "bmp")
_RIFF, _WEBP, _WEBP_AT = b"RIFF", b"WEBP", 8
_FTYP, _FTYP_AT = b"ftyp", 4
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx")
_AVIF_BRANDS = (b"avif", b"avis", b"mif1", b"msf1")
# As long as the longest of the signatures.
_START_BYTES = 16


@dataclass(frozen=True)
class ImageFormat:
    """What is known of a format beforehand.

    Attributes:
        name: as `--image-formats` has it.
        signatures: what a file of the format begins with, any of them.
        suffixes: of file names, with the dot.
        memory_bytes: of a pixel, at the peak of its decoding.
        work: of a pixel.
        work_of_byte: of an encoded byte.
    """

    name: str
    signatures: tuple[bytes, ...]
    suffixes: tuple[str, ...]
    memory_bytes: float = 6.0
    work: float = 1.0
    work_of_byte: float = 0.0


_JPEG = ImageFormat("jpeg", (b"\xff\xd8\xff",), (".jpg", ".jpeg"))
_PNG = ImageFormat("png", (b"\x89PNG\r\n\x1a\n",), (".png",))
_WEBP_FORMAT = ImageFormat("webp", (), (".webp",))
_AVIF = ImageFormat("avif", (), (".avif",), memory_bytes=18.0, work=4.0, work_of_byte=4.0)

FORMATS = {
    entry.name: entry
    for entry in (
        _JPEG,
        _PNG,
        _WEBP_FORMAT,
        ImageFormat("bmp", (b"BM",), (".bmp",)),
        ImageFormat("gif", (b"GIF87a", b"GIF89a"), (".gif",), memory_bytes=12.5, work=6.0),
        ImageFormat(
            "tiff",
            (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
            (".tif", ".tiff"),
            memory_bytes=14.0,
            work=5.0,
        ),
        _AVIF,
        ImageFormat(
            "jpeg2000",
            (b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"),
            (".jp2", ".j2k"),
            memory_bytes=18.0,
            work=12.0,
        ),
        ImageFormat("hdr", (b"#?RGBE", b"#?RADIANCE"), (".hdr",), memory_bytes=15.5, work=3.0),
        ImageFormat(
            "pnm",
            (b"P1", b"P2", b"P3", b"P4", b"P5", b"P6", b"P7"),
            (".ppm", ".pgm", ".pbm", ".pnm", ".pam"),
            work=3.0,
        ),
        ImageFormat("pfm", (b"PF", b"Pf"), (".pfm",), memory_bytes=24.5, work=4.0),
        ImageFormat("sunraster", (b"\x59\xa6\x6a\x95",), (".sr", ".ras")),
    )
}
JPEG_SUFFIXES = _JPEG.suffixes
IMAGE_SUFFIXES = frozenset(suffix for entry in FORMATS.values() for suffix in entry.suffixes)
"""Those of all formats, for the images in a folder."""
# By their first two bytes, so that one look finds the few that are possible.
_SIGNATURES: dict[bytes, list[tuple[bytes, ImageFormat]]] = {}
for _entry in FORMATS.values():
    for _signature in _entry.signatures:
        _SIGNATURES.setdefault(_signature[:2], []).append((_signature, _entry))


def image_format(data: bytes | memoryview) -> ImageFormat | None:
    """The format that the first bytes of `data` are a signature of, or None."""
    start = bytes(data[:_START_BYTES])
    for signature, entry in _SIGNATURES.get(start[:2], ()):
        if start.startswith(signature):
            return entry
    if start.startswith(_RIFF) and start.startswith(_WEBP, _WEBP_AT):
        return _WEBP_FORMAT
    if start.startswith(_FTYP, _FTYP_AT) and start[_WEBP_AT:12] in _AVIF_BRANDS:
        return _AVIF
    return None


def is_heic(data: bytes) -> bool:
    """Whether `data` begins as photographs of phones do that nothing here decodes."""
    return data.startswith(_FTYP, _FTYP_AT) and data[_WEBP_AT:12] in _HEIC_BRANDS
