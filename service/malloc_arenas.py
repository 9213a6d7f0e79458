"""The arenas of glibc's allocator, which limit how much freed memory it keeps."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping

from engine.cpu.cores import available_cores

# M_TRIM_THRESHOLD, M_MMAP_THRESHOLD and M_ARENA_MAX of malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
# What the user may have set: each is a variable, and a name in GLIBC_TUNABLES.
_ARENA_VARIABLES = {"MALLOC_ARENA_MAX": "arena_max"}
_THRESHOLD_VARIABLES = {
    "MALLOC_MMAP_THRESHOLD_": "mmap_threshold",
    "MALLOC_TRIM_THRESHOLD_": "trim_threshold",
}
_FEWEST = 2
# At the ends of all arenas together, and of each: there glibc's own adjustment ends.
_KEPT_BYTES = 256 << 20
_KEPT_ARENA_BYTES = 64 << 20

_libc = ctypes.CDLL(None)


def limit_arenas() -> None:
    """Limit the arenas to the number of cores; call it before threads are started (glibc only).

    By default nearly every thread that allocates gets an arena of its own, up to eight a core, and
    each arena keeps megabytes of what was freed there: images that are decoded in the threads of
    many connections leave memory in all of them. No more threads than cores allocate at the same
    time. See mallopt(3). What the user has set, MALLOC_ARENA_MAX or glibc.malloc.arena_max in
    GLIBC_TUNABLES, holds.
    """
    _set({_ARENA_MAX: _arenas()}, _ARENA_VARIABLES)


def keep_freed_blocks() -> None:
    """Let the arenas keep blocks for the next images; call it when a server is loaded (glibc only).

    By default glibc takes large blocks from the kernel and returns them, so that each image's
    pages are mapped and cleared anew, with a small model a fifth of the CPU time of a request. It
    raises its thresholds as such blocks are freed; how far depends on the model that was loaded.
    From now on each arena keeps its part of 256 MiB at its end, 64 MiB at most, and blocks of up
    to half of that come from it. See mallopt(3). What the user has set holds, and one of these
    turns off both: MALLOC_MMAP_THRESHOLD_, MALLOC_TRIM_THRESHOLD_, and glibc.malloc.mmap_threshold
    and glibc.malloc.trim_threshold in GLIBC_TUNABLES.
    """
    kept_bytes = min(_KEPT_ARENA_BYTES, _KEPT_BYTES // _arenas())
    _set({_MMAP_THRESHOLD: kept_bytes // 2, _TRIM_THRESHOLD: kept_bytes}, _THRESHOLD_VARIABLES)


def _arenas() -> int:
    return max(_FEWEST, available_cores())


def _set(values: Mapping[int, int], variables: Mapping[str, str]) -> None:
    """Set parameters of mallopt unless the user has set any of `variables`."""
    tunables = [part.partition("=")[0] for part in os.environ.get("GLIBC_TUNABLES", "").split(":")]
    for variable, name in variables.items():
        if variable in os.environ or f"glibc.malloc.{name}" in tunables:
            return
    if hasattr(_libc, "mallopt"):
        for parameter, value in values.items():
            _libc.mallopt(parameter, value)


def trim_arenas() -> None:
    """Return free memory of the arenas to the kernel (glibc only).

    For after many large messages, whose blocks the arenas keep. It takes milliseconds, and other
    threads go on meanwhile.
    """
    if hasattr(_libc, "malloc_trim"):
        _libc.malloc_trim(0)
