"""The arenas of glibc's allocator, which limit how much freed memory it keeps."""

from __future__ import annotations

import ctypes
import os

from engine.cpu.cores import available_cores

# M_TRIM_THRESHOLD, M_MMAP_THRESHOLD and M_ARENA_MAX of malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_FEWEST = 2
# glibc's own adjustment ends here.
_LARGEST_BLOCK_BYTES = 32 << 20

_libc = ctypes.CDLL(None)


def limit_arenas() -> None:
    """Limit the arenas to the number of cores; call it before threads are started (glibc only).

    By default nearly every thread that allocates gets an arena of its own, up to eight a core, and
    each arena keeps megabytes of what was freed there: images that are decoded in the threads of
    many connections leave memory in all of them. No more threads than cores allocate at the same
    time. See mallopt(3); the variable MALLOC_ARENA_MAX has precedence.
    """
    _set(_ARENA_MAX, "MALLOC_ARENA_MAX", max(_FEWEST, available_cores()))


def keep_freed_blocks() -> None:
    """Let the arenas keep blocks for the next images; call it when a server is loaded (glibc only).

    By default glibc takes large blocks from the kernel and returns them, so that each image's
    pages are mapped and cleared anew, with a small model a fifth of the CPU time of a request. It
    raises its thresholds as such blocks are freed; how far depends on the model that was loaded.
    From now on blocks of up to 32 MiB come from the arenas, each of which keeps up to twice as much
    at its end: as after the largest such block. See mallopt(3); the variables
    MALLOC_MMAP_THRESHOLD_ and MALLOC_TRIM_THRESHOLD_ have precedence.
    """
    _set(_MMAP_THRESHOLD, "MALLOC_MMAP_THRESHOLD_", _LARGEST_BLOCK_BYTES)
    _set(_TRIM_THRESHOLD, "MALLOC_TRIM_THRESHOLD_", 2 * _LARGEST_BLOCK_BYTES)


def _set(parameter: int, variable: str, value: int) -> None:
    if variable not in os.environ and hasattr(_libc, "mallopt"):
        _libc.mallopt(parameter, value)


def trim_arenas() -> None:
    """Return free memory of the arenas to the kernel (glibc only).

    For after many large messages, whose blocks the arenas keep. It takes milliseconds, and other
    threads go on meanwhile.
    """
    if hasattr(_libc, "malloc_trim"):
        _libc.malloc_trim(0)
