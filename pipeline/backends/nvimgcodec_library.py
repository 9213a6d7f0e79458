"""nvImageCodec's C interface, which decodes a batch with one release of the interpreter's lock.

NVIDIA's Python binding of the same library releases it about five times an image, and under load
another thread takes it each time (results/h200-decoding). Here only the calls that take long
release it; the others take microseconds.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import byref, c_char_p, c_int, c_size_t
from ctypes import c_void_p as handle
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

from pipeline.backends.nvimgcodec_structures import InstanceCreateInfo

# Its structures have other sizes in other versions.
_VERSION = "0.9"
_PACKAGES = ("nvidia-nvimgcodec-cu13", "nvidia-nvimgcodec-cu12")
# nvimgcodecStatus_t of nvimgcodec.h.
_STATUSES = (
    *("success", "not initialized", "invalid parameter", "bad code stream"),
    *("unsupported code stream", "no memory", "execution failed", "no such hardware here"),
    *("internal error", "not implemented", "a library is missing"),
)

# Argument types, by name without "nvimgcodec"; all of them return a status.
_KEEP_THE_LOCK: dict[str, tuple[Any, ...]] = {
    "InstanceCreate": (handle, handle),
    "CodeStreamCreateFromHostMem": (handle, handle, handle, c_size_t, handle),
    "CodeStreamDestroy": (handle,),
    "CodeStreamGetImageInfo": (handle, handle),
    "ImageCreate": (handle, handle, handle),
    "ImageDestroy": (handle,),
    "FutureWaitForAll": (handle,),
    "FutureGetProcessingStatus": (handle, handle, handle),
    "FutureDestroy": (handle,),
}
_RELEASE_THE_LOCK: dict[str, tuple[Any, ...]] = {
    "DecoderCreate": (handle, handle, handle, c_char_p),
    "DecoderDestroy": (handle,),
    "DecoderDecode": (handle, handle, handle, c_int, handle, handle),
}

Function: TypeAlias = "Callable[..., None]"


class NvImageCodecError(RuntimeError):
    """The library refuses a call; the message has its status, an nvimgcodecStatus_t."""


def why_unusable() -> str:
    """Why the installed nvImageCodec cannot be used, and what helps; "" where it can.

    Nothing is loaded: that would take memory of the GPU.
    """
    advice = "pip install 'thriftpipe[gpu]'"
    version = next(filter(None, map(_version, _PACKAGES)), None)
    if version is None:
        return f"nvImageCodec is not installed ({advice})"
    if version.split(".")[:2] != _VERSION.split("."):
        return f"nvImageCodec {version} is installed, and {_VERSION} is needed ({advice})"
    return ""


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


class Library:
    """The library's functions and one instance of it, for all decoders of a process.

    The instance is never given back.

    Attributes:
        functions: by name without "nvimgcodec"; NvImageCodecError if a call fails.
        instance: what code streams, images and decoders are made in.

    Raises:
        NvImageCodecError: no instance can be made.
        OSError: the library cannot be loaded.
    """

    def __init__(self) -> None:
        # The package itself is not imported: it would make an instance of its own.
        try:
            package = find_spec("nvidia.nvimgcodec")
        except ModuleNotFoundError:
            package = None
        if package is None or package.origin is None:
            raise OSError("nvImageCodec is installed without its package nvidia.nvimgcodec")
        folder = Path(package.origin).parent
        path = str(folder / "libnvimgcodec.so.0")
        self.functions: dict[str, Function] = {}
        for loaded, arguments_by_name in (
            (ctypes.PyDLL(path), _KEEP_THE_LOCK),
            (ctypes.CDLL(path), _RELEASE_THE_LOCK),
        ):
            for name, arguments in arguments_by_name.items():
                function = loaded[f"nvimgcodec{name}"]
                function.argtypes, function.restype = arguments, c_int
                function.errcheck = _raise_if_refused
                self.functions[name] = function
        self.instance = handle()
        info = InstanceCreateInfo(
            load_builtin_modules=1,
            load_extension_modules=1,
            extension_modules_path=str(folder / "extensions").encode(),
        )
        self.functions["InstanceCreate"](byref(self.instance), byref(info))


def _raise_if_refused(status: Any, function: Any, arguments: Any) -> Any:  # noqa: ARG001
    if status:
        told = f"status {status}"
        if status < len(_STATUSES):
            told += f", {_STATUSES[status]}"
        raise NvImageCodecError(f"{function.__name__} failed ({told})")
