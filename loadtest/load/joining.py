"""Worker processes of this machine, which join a master of Locust's distributed mode."""

from __future__ import annotations

import queue
import socket
import sys
from collections.abc import Sequence
from contextlib import ExitStack

from interfaces.messages import from_json, to_json
from loadtest.errors import LoadTestError, UsageError
from loadtest.load.client_protocol import Gone, Notice, WorkerSetup
from loadtest.load.images import LoadImage
from loadtest.processes.child_process import ChildProcess, Lines
from loadtest.progress import Progress

_PROGRAM = [sys.executable, "-m", "loadtest.load.worker_process"]


def start_worker(host: str, port: int, images: Sequence[LoadImage], lines: Lines) -> ChildProcess:
    """Start a worker that joins the master there; what it says of itself comes in `lines`."""
    process = ChildProcess(_PROGRAM, "a worker", lines)
    paths = [str(image.path) for image in images]
    names = [[image.name, image.sha256] for image in images]
    process.write_line(to_json(WorkerSetup(host, port, paths, names)))
    return process


def said_by_worker(line: str) -> Notice | Gone:
    """What a worker tells the process that started it."""
    said: Notice | Gone = from_json(line, [Notice, Gone])
    return said


def work(
    host: str, port: int, processes: int, images: Sequence[LoadImage], progress: Progress
) -> None:
    """Be so many workers of the master there, until it has ended.

    Raises:
        UsageError: no machine has that name, or the master refuses.
        LoadTestError: no master answers, or it is lost.
    """
    try:
        socket.getaddrinfo(host, port)
    except OSError as error:
        raise UsageError(f"--worker {host}:{port}: {error.strerror}") from error
    lines: Lines = queue.SimpleQueue()
    progress.line(f"looking for the master at {host}:{port}")
    with ExitStack() as stack:
        there = {
            stack.enter_context(start_worker(host, port, images, lines)): number
            for number in range(1, processes + 1)
        }
        ended: dict[ChildProcess, Gone] = {}
        while len(ended) < processes:
            process, line = lines.get()
            if line is None and process in ended:
                continue
            # The others end with the load, as the master says.
            said = Gone(process.ended(), is_done=False) if line is None else said_by_worker(line)
            if isinstance(said, Gone):
                ended[process] = said
            told = said.reason if isinstance(said, Gone) else said.text
            progress.line(f"worker process {there[process]}: {told}")
    if reasons := [gone.reason for gone in ended.values() if not gone.is_done]:
        raise LoadTestError(reasons[0])
