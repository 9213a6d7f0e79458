"""Processes that outlive the worker that started them, such as the engine process."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
import time
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent ends (Linux; elsewhere init does)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def wait_for_children(timeout_s: float) -> list[int]:
    """Wait until no child is left; kill those that are still there when the time is over.

    Returns:
        The process ids of those that had to be killed.
    """
    end_s = time.monotonic() + timeout_s
    killed = []
    while children := _children():
        pid = children[0]
        fd = os.pidfd_open(pid)
        try:
            waiting = select.poll()
            waiting.register(fd, select.POLLIN)
            if not waiting.poll(max(0.0, end_s - time.monotonic()) * 1000):
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
        finally:
            os.close(fd)
        os.waitpid(pid, 0)
    return killed


def _children() -> list[int]:
    """The process ids of this process's children; none where the kernel does not tell."""
    found: list[int] = []
    for thread in Path("/proc/self/task").glob("*/children"):
        found += map(int, thread.read_text().split())
    return found
