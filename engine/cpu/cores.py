"""How many CPU cores this process may use, and how to spread them over execution contexts."""

from __future__ import annotations

import hashlib
import os
import platform
import re
from pathlib import Path

from engine.cpu.cgroups import CGROUP_ROOT, PROC_CGROUP, cgroup_folders
from interfaces.names import shown

CPUINFO = Path("/proc/cpuinfo")

_CORES = re.compile(r"0{0,9}[1-9][0-9]{0,4}")

CORES_VARIABLE = "THRIFTPIPE_CORES"
"""Environment variable: how many cores this process is to count on, as one of several."""


def available_cores() -> int:
    """Cores that this process may use, at least 1: the least of affinity, quota and share.

    They are its affinity mask, its cgroup's CPU quota, and what THRIFTPIPE_CORES says. A quota of
    2.5 cores counts as 2: a third thread would be throttled for half of the time.

    Raises:
        ValueError: THRIFTPIPE_CORES is no number of cores.
    """
    limits: list[float] = [len(os.sched_getaffinity(0))]
    quota = cgroup_quota_cores()
    if quota is not None:
        limits.append(quota)
    if share := os.environ.get(CORES_VARIABLE):
        if not _CORES.fullmatch(share):
            raise ValueError(
                f"{CORES_VARIABLE} takes a number of cores from 1 to 99999, got {shown(share)}"
            )
        limits.append(int(share))
    return max(1, int(min(limits)))


def cgroup_quota_cores(
    proc_cgroup: Path = PROC_CGROUP, cgroup_root: Path = CGROUP_ROOT
) -> float | None:
    """The tightest CPU quota of the process's cgroup and all its parents, in cores.

    Args:
        proc_cgroup: the file that names the process's cgroups.
        cgroup_root: where the cgroup file systems are mounted, version 1 or 2.

    Returns:
        The quota, or None where there is none.
    """
    quotas = [
        quota
        for folder in cgroup_folders("cpu", proc_cgroup, cgroup_root)
        for quota in (_quota_v2(folder), _quota_v1(folder))
        if quota is not None
    ]
    return min(quotas, default=None)


def threads_per_context(num_contexts: int, cores: int | None = None) -> int:
    """CPU threads for each of `num_contexts` contexts that run at the same time.

    Contexts times threads never exceeds the cores as long as the contexts alone do not: two
    instances of two threads each on two cores are slower than two of one.

    Args:
        num_contexts: how many contexts run at the same time.
        cores: cores to share out, or None for `available_cores()`.
    """
    return max(1, (cores or available_cores()) // num_contexts)


def fitting_contexts(num_contexts: int, cores: int | None = None) -> int:
    """How many of `num_contexts` contexts keep the cores busy without taking turns on them.

    Args:
        num_contexts: how many are asked for.
        cores: cores to share out, or None for `available_cores()`.
    """
    return min(num_contexts, cores or available_cores())


def cpu_identity() -> str:
    """A digest of the CPU's model and instruction sets: what compiled code depends on."""
    try:
        lines = CPUINFO.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    wanted = ("vendor_id", "cpu family", "model", "model name", "flags", "Features", "CPU part")
    facts = sorted({line for line in lines if line.split("\t")[0].split(":")[0].strip() in wanted})
    text = "\n".join([platform.machine(), platform.processor(), *facts])
    return hashlib.sha256(text.encode()).hexdigest()


def _quota_v2(folder: Path) -> float | None:
    try:
        quota, period = (folder / "cpu.max").read_text(encoding="utf-8").split()
    except OSError:
        return None
    return None if quota == "max" else int(quota) / int(period)


def _quota_v1(folder: Path) -> float | None:
    try:
        quota = int((folder / "cpu.cfs_quota_us").read_text(encoding="utf-8"))
        period = int((folder / "cpu.cfs_period_us").read_text(encoding="utf-8"))
    except OSError:
        return None
    return None if quota <= 0 else quota / period
