"""Processes that outlive the worker that started them, such as the engine process."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from service.processes.process import DYING_S

_PR_SET_CHILD_SUBREAPER = 36
# For a process that ends by itself once its parent has, such as multiprocessing's resource tracker.
_OTHERS_S = 0.5


def become_subreaper() -> None:
    """Become the parent of descendants whose own parent ends (Linux; elsewhere init does)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def reap_orphans(own: Collection[int]) -> list[tuple[int, int]]:
    """Reap adopted processes that have ended.

    Args:
        own: children that other code waits for.

    Returns:
        The process id and exit code of each, the code as in `subprocess`.
    """
    reaped = []
    for pid in _children():
        if pid in own:
            continue
        # The code that started it may have waited for it since.
        with suppress(ChildProcessError):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                reaped.append((pid, os.waitstatus_to_exitcode(status)))
    return reaped


def wait_for_children(timeout_s: float, own: Collection[int] = ()) -> list[int]:
    """Wait until no child is left; kill those that are still there when the time is over.

    Args:
        timeout_s: how long the server's own ones may take.
        own: their process ids. Others, such as one that a backend has forked, are not waited for:
            they get a moment, for what ends with its parent.

    Returns:
        The process ids of those that had to be killed.
    """
    end_s = time.monotonic() + timeout_s
    others_end_s = min(end_s, time.monotonic() + _OTHERS_S)
    killed: list[int] = []
    while children := [pid for pid in _children() if pid not in killed]:
        pid = min(children, key=own.__contains__)
        if not _has_ended(pid, (end_s if pid in own else others_end_s) - time.monotonic()):
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)
            if not _has_ended(pid, DYING_S):
                continue
        with suppress(ChildProcessError):
            os.waitpid(pid, 0)
    return killed


def _has_ended(pid: int, timeout_s: float) -> bool:
    """Whether a child ends in that time; it is not waited for without a descriptor to do so."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    try:
        waiting = select.poll()
        waiting.register(fd, select.POLLIN)
        return bool(waiting.poll(max(0.0, timeout_s) * 1000))
    finally:
        os.close(fd)


def _children() -> list[int]:
    """The process ids of this process's children; none where the kernel does not tell.

    So it is where no descriptor is left to read them.
    """
    found: list[int] = []
    with suppress(OSError):
        for thread in Path("/proc/self/task").glob("*/children"):
            # It may have ended.
            with suppress(FileNotFoundError, ProcessLookupError):
                found += map(int, thread.read_text().split())
    return found
