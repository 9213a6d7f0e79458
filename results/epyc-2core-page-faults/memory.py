"""Memory that a server keeps after rounds of large images from 24 clients at once.

Run in the project's folder, with options of the server at the end:

    PYTHONPATH=. python results/epyc-2core-page-faults/memory.py [--cores N] [--png] [--stay N] ...

--cores lets its process count on so many cores; --png sends images of up to 32 MB, from 6 clients,
in place of JPEGs of up to 10 million pixels; --stay leaves so many connections open each round.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import cv2
import numpy as np

from loadtest.measure.null_model import write_null_model
from service.client import Client
from tests.serving import ON_EIGHT_CORES, ServerProcess

_SIZES = ((3100, 3300), (1600, 1700), (900, 1200), (284, 427))
_PNG_SIZES = ((3270, 3270), (1600, 1700), (900, 1200))
_LARGEST_BYTES = 40_000_000
_CALLS, _ROUNDS = 6, 8


def main() -> None:
    """Print MiB of all the server's processes after the start and after each round."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cores", type=int)
    parser.add_argument("--png", action="store_true")
    parser.add_argument("--stay", type=int, default=0)
    own, options = parser.parse_known_args()
    code = ON_EIGHT_CORES.replace("range(8)", f"range({own.cores})")
    start = ["-c", code] if own.cores else ["-m", "service"]
    model = str(write_null_model(Path(tempfile.gettempdir())))
    images, threads = (list(_pngs()), 6) if own.png else (list(_jpegs()), 24)
    arguments = ["--handler", "pipeline", "--model", model, "--port", "0", "--calibrate", "off"]
    server = ServerProcess([*start, *arguments, "--max-queue-ms", "0", *options])
    with ExitStack() as closing:
        closing.callback(server.close)
        port, peak = server.port(), 0.0

        def send(first: int) -> None:
            with Client("localhost", port, max_request_bytes=_LARGEST_BYTES) as client:
                for number in range(first, first + _CALLS):
                    client.classify(images[number % len(images)])

        sys.stdout.write(f"start: {_resident_mib(server):.0f} MiB\n")
        for _ in range(_ROUNDS):
            with ThreadPoolExecutor(threads) as clients:
                calls = [clients.submit(send, first) for first in range(threads)]
                while not all(call.done() for call in calls):
                    peak = max(peak, _resident_mib(server))
                    time.sleep(0.05)
                for call in calls:
                    call.result()
            for number in range(own.stay):
                client = closing.enter_context(Client("localhost", port))
                client.classify(images[number % len(images)])
            sys.stdout.write(f"after: {_resident_mib(server):.0f} MiB, peak {peak:.0f} MiB\n")
            sys.stdout.flush()


def _resident_mib(server: ServerProcess) -> float:
    """Of its processes together; a page that n share counts as 1/n in each."""
    kib = 0
    for process in server.left_behind():
        told = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
        kib += int(re.findall(r"^Pss:\s+(\d+) kB", told, re.MULTILINE)[0])
    return kib / 1024


def _jpegs() -> Iterator[bytes]:
    for height, width in _SIZES:
        levels = (np.indices((height, width)).sum(0) % 256).astype(np.uint8)
        yield cv2.imencode(".jpg", np.stack([levels] * 3, axis=2))[1].tobytes()


def _pngs() -> Iterator[bytes]:
    for height, width in _PNG_SIZES:
        noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
        yield cv2.imencode(".png", noise, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()


if __name__ == "__main__":
    main()
