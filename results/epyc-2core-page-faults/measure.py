"""CPU time and page faults of a server for each image of one client.

Run in the project's folder; the model is a file, a name of the zoo, or "null":

    PYTHONPATH=. python results/epyc-2core-page-faults/measure.py null .bench/images
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from loadtest.measure.null_model import write_null_model
from service.client import Client
from tests.serving import service

_ROUNDS, _REPEATS = 20, 3


class _Usage(NamedTuple):
    cpu_ms: float
    page_faults: int


def main(model: str, photos: str) -> None:
    """Print what a server takes for each image of one client."""
    images = [path.read_bytes() for path in sorted(Path(photos).glob("*.jpg"))]
    if model == "null":
        model = str(write_null_model(Path(tempfile.gettempdir())))
    with (
        service("--handler", "pipeline", "--model", model) as (port, process),
        Client("localhost", port) as client,
    ):
        for repeat in range(_REPEATS):
            before = _usage(process.pid)
            for _ in range(_ROUNDS):
                for image in images:
                    client.classify(image)
            after = _usage(process.pid)
            count = _ROUNDS * len(images)
            cpu_ms = (after.cpu_ms - before.cpu_ms) / count
            faults = (after.page_faults - before.page_faults) / count
            sys.stdout.write(f"{repeat}: {cpu_ms:.2f} ms of CPU, {faults:.1f} page faults\n")


def _usage(pid: int) -> _Usage:
    """Of all threads, those that have ended included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return _Usage((int(fields[11]) + int(fields[12])) * 10, int(fields[7]))


if __name__ == "__main__":
    main(*sys.argv[1:])
