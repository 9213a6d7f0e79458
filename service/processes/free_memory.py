"""How much memory this process and its children may still take."""

from __future__ import annotations

import math
from pathlib import Path

from engine.cpu.cgroups import CGROUP_ROOT, cgroup_folders

_PROC = Path("/proc")


def free_memory_bytes(proc: Path = _PROC, cgroup_root: Path = CGROUP_ROOT) -> float:
    """The least of what the host and each control group of this process has left.

    What the kernel would give back, such as cached files, counts as free.

    Args:
        proc: where the proc file system is mounted.
        cgroup_root: where the control groups are mounted, version 1 or 2.

    Returns:
        Bytes; infinite where nothing tells.
    """
    groups = cgroup_folders("memory", proc / "self" / "cgroup", cgroup_root)
    return min([_of_host(proc), *map(_of_group, groups)])


def _of_host(proc: Path) -> float:
    try:
        lines = (proc / "meminfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return math.inf
    for line in lines:
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024
    return math.inf


def _of_group(folder: Path) -> float:
    names = ("memory.max", "memory.current", "inactive_file")
    if not (folder / names[0]).exists():
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    try:
        limit, used = ((folder / name).read_text(encoding="utf-8").strip() for name in names[:2])
        statistics = (folder / "memory.stat").read_text(encoding="utf-8").splitlines()
    except OSError:
        return math.inf
    if limit == "max":
        return math.inf
    cached = dict(line.split() for line in statistics).get(names[2], "0")
    return max(0, int(limit) - max(0, int(used) - int(cached)))
