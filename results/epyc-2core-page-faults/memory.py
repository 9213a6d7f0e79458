"""Memory that a server keeps after images of up to 10 million pixels from 24 clients at once.

Run in the project's folder:

    PYTHONPATH=. python results/epyc-2core-page-faults/memory.py
"""

from __future__ import annotations

import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import psutil

from loadtest.measure.null_model import write_null_model
from service.client import Client
from tests.serving import service

_SIZES = ((3100, 3300), (1600, 1700), (900, 1200), (284, 427))
_CLIENTS, _CALLS, _ROUNDS = 24, 6, 3


def main() -> None:
    """Print MiB after the start, and after each round with its peak so far."""
    model = str(write_null_model(Path(tempfile.gettempdir())))
    images = [_jpeg(*size) for size in _SIZES]
    with service("--handler", "pipeline", "--model", model) as (port, process):
        server, peak = psutil.Process(process.pid), 0.0

        def resident_mib() -> float:
            return float(server.memory_info().rss) / 2**20

        def send(first: int) -> None:
            with Client("localhost", port) as client:
                for number in range(first, first + _CALLS):
                    client.classify(images[number % len(images)])

        sys.stdout.write(f"start: {resident_mib():.0f} MiB\n")
        for _ in range(_ROUNDS):
            with ThreadPoolExecutor(_CLIENTS) as clients:
                calls = [clients.submit(send, first) for first in range(_CLIENTS)]
                while not all(call.done() for call in calls):
                    peak = max(peak, resident_mib())
                    time.sleep(0.01)
                for call in calls:
                    call.result()
            sys.stdout.write(f"after: {resident_mib():.0f} MiB, peak {peak:.0f} MiB\n")


def _jpeg(height: int, width: int) -> bytes:
    levels = (np.indices((height, width)).sum(0) % 256).astype(np.uint8)
    return cv2.imencode(".jpg", np.stack([levels] * 3, axis=2))[1].tobytes()


if __name__ == "__main__":
    main()
