"""How many heaps threads share, as glibc tells it, and what a server takes from the kernel."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from idl import inference
from tests.image_models import save_means
from tests.serving import connect, service

THREADS = 12
LIBC = """
import ctypes, sys, threading
import service.malloc_arenas
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
"""
SCRIPT = f"""{LIBC}
service.malloc_arenas.limit_arenas()
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
BLOCK_BYTES = 10 << 20
KEEPING = f"""{LIBC}
service.malloc_arenas.available_cores = lambda: {{cores}}
service.malloc_arenas.limit_arenas()
service.malloc_arenas.keep_freed_blocks()
libc.malloc_stats()
"""
FILLING = f"""
import psutil
server, turn = psutil.Process(), threading.Lock()
together = threading.Barrier({THREADS})
def work():
    small = libc.malloc(1000)
    together.wait()
    with turn:
        blocks = [libc.malloc({BLOCK_BYTES}) for _ in range(5)]
        for block in blocks: ctypes.memset(block, 1, {BLOCK_BYTES})
        for block in blocks: libc.free(block)
    together.wait()
before = server.memory_info().rss
threads = [threading.Thread(target=work) for _ in range({THREADS})]
for thread in threads: thread.start()
for thread in threads: thread.join()
print((server.memory_info().rss - before) / 2**20, file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("given", "heaps"),
    [
        ({"THRIFTPIPE_CORES": "1"}, 2),
        ({"THRIFTPIPE_CORES": "1", "MALLOC_ARENA_MAX": "5"}, 5),
        ({"THRIFTPIPE_CORES": "1", "GLIBC_TUNABLES": "glibc.malloc.arena_max=4"}, 4),
    ],
    ids=str,
)
def test_threads_share_them(given: dict[str, str], heaps: int) -> None:
    told = run(SCRIPT, given)
    assert sum(line.startswith("Arena") for line in told.splitlines()) == heaps


@pytest.mark.parametrize(
    ("given", "cores", "regions"),
    [
        ({}, 2, 0),
        ({}, 64, 1),
        # glibc's own start: it adjusts itself only when such a block is freed.
        ({"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=131072"}, 2, 1),
        ({"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0:glibc.malloc.trim_threshold=131072"}, 2, 1),
        ({"MALLOC_MMAP_THRESHOLD_": "131072"}, 2, 1),
        ({"MALLOC_TRIM_THRESHOLD_": "131072"}, 2, 1),
        ({"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"}, 2, 0),
    ],
    ids=str,
)
def test_a_block_of_ten_mib(given: dict[str, str], cores: int, regions: int) -> None:
    """It comes from an arena, or is a region of its own, as the cores and the user have it."""
    told = run(
        KEEPING.format(cores=cores) + f"libc.malloc({BLOCK_BYTES})\nlibc.malloc_stats()", given
    )
    counted = [line for line in told.splitlines() if line.startswith("max mmap regions")]
    before, after = (int(line.rpartition("=")[2]) for line in counted)
    assert after - before == regions


def test_all_arenas_together_keep_a_limited_amount() -> None:
    """Whichever arena a thread has: each fills 50 MiB of its own and frees them."""
    kept_mib = float(run(KEEPING.format(cores=THREADS) + FILLING, {}).splitlines()[-1])
    assert kept_mib < 300


def run(script: str, given: dict[str, str]) -> str:
    """What it writes to its stderr, in an environment with `given`."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC")}
    return subprocess.run(
        [sys.executable, "-c", script],
        env={**inherited, **given},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stderr


@pytest.mark.parametrize("handler", ["baseline", "pipeline"])
def test_images_are_decoded_into_memory_that_was_freed(handler: str, tmp_path: Path) -> None:
    """Whatever loading has freed, which is little with a small model."""
    sizes = ((284, 427), (853, 1280), (500, 500), (427, 640))
    photos = [
        cv2.imencode(".jpg", np.full((*size, 3), 100, np.uint8))[1].tobytes() for size in sizes
    ]
    model = save_means(tmp_path / "means.onnx")
    with service("--handler", handler, "--model", str(model)) as (port, process):
        client = connect(port)
        calls = 5 * len(photos)
        faults = []
        for _ in range(3):
            before = page_faults(process.pid)
            for number in range(calls):
                client.infer_batch(
                    inference.InferenceParams(str(number), photos[number % len(photos)])
                )
            faults.append(page_faults(process.pid) - before)
        client.close()
    # The first calls are those that take it; a single small image has 90 pages.
    assert min(faults) < 20 * calls


def page_faults(pid: int) -> int:
    """How often the kernel gave a page to the process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[7])
