"""The structures of nvImageCodec's C interface, version 0.9.

Their names, fields and numbers are those of `nvimgcodec.h`, which lies in the package. A structure
tells its size to the library, which refuses one of another version.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_char, c_char_p, c_float, c_int, c_size_t, c_uint8, c_uint32
from ctypes import c_void_p as handle
from typing import Any, ClassVar


class Structure(ctypes.Structure):
    """A structure that says of itself what it is, and how large."""

    c_name: ClassVar[str]
    struct_type_id: ClassVar[int]

    def __init__(self, **values: Any) -> None:
        super().__init__(struct_type=self.struct_type_id, struct_size=ctypes.sizeof(self), **values)


_HEAD: Any = (("struct_type", c_int), ("struct_size", c_size_t), ("struct_next", handle))


class InstanceCreateInfo(Structure):
    """nvimgcodecInstanceCreateInfo_t."""

    c_name = "nvimgcodecInstanceCreateInfo_t"
    struct_type_id = 2
    _fields_ = (
        *_HEAD,
        ("load_builtin_modules", c_int),
        ("load_extension_modules", c_int),
        ("extension_modules_path", c_char_p),
        ("create_debug_messenger", c_int),
        ("debug_messenger_desc", handle),
        ("message_severity", c_uint32),
        ("message_category", c_uint32),
    )


class DecodeParams(Structure):
    """nvimgcodecDecodeParams_t."""

    c_name = "nvimgcodecDecodeParams_t"
    struct_type_id = 5
    _fields_ = (*_HEAD, ("apply_exif_orientation", c_int))


class Orientation(Structure):
    """nvimgcodecOrientation_t."""

    c_name = "nvimgcodecOrientation_t"
    struct_type_id = 7
    _fields_ = (*_HEAD, ("rotated", c_int), ("flip_x", c_int), ("flip_y", c_int))


class PlaneInfo(Structure):
    """nvimgcodecImagePlaneInfo_t."""

    c_name = "nvimgcodecImagePlaneInfo_t"
    struct_type_id = 12
    _fields_ = (
        *_HEAD,
        ("width", c_uint32),
        ("height", c_uint32),
        ("row_stride", c_size_t),
        ("num_channels", c_uint32),
        ("sample_type", c_int),
        ("precision", c_uint8),
    )


class ImageInfo(Structure):
    """nvimgcodecImageInfo_t."""

    c_name = "nvimgcodecImageInfo_t"
    struct_type_id = 11
    _fields_ = (
        *_HEAD,
        ("codec_name", c_char * 256),
        ("color_spec", c_int),
        ("chroma_subsampling", c_int),
        ("sample_format", c_int),
        ("orientation", Orientation),
        ("num_planes", c_uint32),
        ("plane_info", PlaneInfo * 32),
        ("buffer", handle),
        ("buffer_kind", c_int),
        ("cuda_stream", handle),
    )


class BackendParams(Structure):
    """nvimgcodecBackendParams_t."""

    c_name = "nvimgcodecBackendParams_t"
    struct_type_id = 29
    _fields_ = (*_HEAD, ("load_hint", c_float), ("load_hint_policy", c_int))


class Backend(Structure):
    """nvimgcodecBackend_t."""

    c_name = "nvimgcodecBackend_t"
    struct_type_id = 17
    _fields_ = (*_HEAD, ("kind", c_int), ("params", BackendParams))


class ExecutionParams(Structure):
    """nvimgcodecExecutionParams_t."""

    c_name = "nvimgcodecExecutionParams_t"
    struct_type_id = 30
    _fields_ = (
        *_HEAD,
        ("device_allocator", handle),
        ("pinned_allocator", handle),
        ("max_num_cpu_threads", c_int),
        ("executor", handle),
        ("device_id", c_int),
        ("pre_init", c_int),
        ("skip_pre_sync", c_int),
        ("num_backends", c_int),
        ("backends", POINTER(Backend)),
    )


STRUCTURES: tuple[type[Structure], ...] = (
    InstanceCreateInfo,
    DecodeParams,
    Orientation,
    PlaneInfo,
    ImageInfo,
    BackendParams,
    Backend,
    ExecutionParams,
)
