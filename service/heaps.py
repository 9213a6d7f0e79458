"""How much freed memory the C library's allocator may keep."""

from __future__ import annotations

import ctypes
import os

from engine.cpu import available_cores

_ARENA_VARIABLE = "MALLOC_ARENA_MAX"
# M_ARENA_MAX of malloc.h.
_ARENA_MAX = -8
_FEWEST = 2


def share_heaps() -> None:
    """Let threads share as many heaps as there are cores, before they are started (glibc only).

    By default nearly every thread that takes memory gets a heap of its own, up to eight a core, and
    each keeps megabytes of what was freed there: images that are decoded in the threads of many
    connections leave traces in all of them. No more threads than cores take memory at the same
    time. See mallopt(3); the variable MALLOC_ARENA_MAX comes first.
    """
    libc = ctypes.CDLL(None)
    if _ARENA_VARIABLE not in os.environ and hasattr(libc, "mallopt"):
        libc.mallopt(_ARENA_MAX, max(_FEWEST, available_cores()))
