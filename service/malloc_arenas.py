"""The arenas of glibc's allocator, which limit how much freed memory it keeps."""

from __future__ import annotations

import ctypes
import os

from engine.cpu.cores import available_cores

_ARENA_VARIABLE = "MALLOC_ARENA_MAX"
# M_ARENA_MAX of malloc.h.
_ARENA_MAX = -8
_FEWEST = 2


_libc = ctypes.CDLL(None)


def limit_arenas() -> None:
    """Limit the arenas to the number of cores; call it before threads are started (glibc only).

    By default nearly every thread that allocates gets an arena of its own, up to eight a core, and
    each arena keeps megabytes of what was freed there: images that are decoded in the threads of
    many connections leave memory in all of them. No more threads than cores allocate at the same
    time. See mallopt(3); the variable MALLOC_ARENA_MAX has precedence.
    """
    if _ARENA_VARIABLE not in os.environ and hasattr(_libc, "mallopt"):
        _libc.mallopt(_ARENA_MAX, max(_FEWEST, available_cores()))


def trim_arenas() -> None:
    """Return free memory of the arenas to the kernel (glibc only).

    Once a block of some megabytes has been freed, glibc takes further ones of that size from its
    arenas (M_MMAP_THRESHOLD in mallopt(3)), and keeps as much free there. A fixed threshold would
    slow down every tensor and image. This takes milliseconds, and other threads go on meanwhile.
    """
    if hasattr(_libc, "malloc_trim"):
        _libc.malloc_trim(0)
