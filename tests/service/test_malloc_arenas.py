"""How many heaps threads share that take memory at the same time, as glibc itself tells it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

THREADS = 12
SCRIPT = f"""
import ctypes, sys, threading
from service.malloc_arenas import limit_arenas
limit_arenas()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
together = threading.Barrier({THREADS})
def work():
    taken = libc.malloc(1000)
    together.wait()
    libc.free(taken)
threads = [threading.Thread(target=work) for _ in range({THREADS})]
for thread in threads: thread.start()
for thread in threads: thread.join()
libc.malloc_stats()
"""


@pytest.mark.parametrize(
    ("given", "heaps"),
    [
        ({"THRIFTPIPE_CORES": "1"}, 2),
        ({"THRIFTPIPE_CORES": "1", "MALLOC_ARENA_MAX": "5"}, 5),
    ],
    ids=str,
)
def test_threads_share_them(given: dict[str, str], heaps: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, **given},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert sum(line.startswith("Arena") for line in done.stderr.splitlines()) == heaps
