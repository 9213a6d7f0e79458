"""How much memory a server has, as the kernel counts it."""

from __future__ import annotations

import re
from pathlib import Path

import psutil


def proportional_bytes(pid: int) -> int:
    """Memory of a process and all below it; what they share counts once."""
    root = psutil.Process(pid)
    return sum(_pss_bytes(process.pid) for process in (root, *root.children(recursive=True)))


def _pss_bytes(pid: int) -> int:
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    match = re.search(r"^Pss:\s+(\d+) kB$", rollup, re.MULTILINE)
    assert match
    return int(match[1]) * 1024


def peak_bytes(pid: int) -> int:
    """The most resident memory that a process has had."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024
