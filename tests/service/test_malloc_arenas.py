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
