"""How a process of the server ended, in words."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")


def how_it_ended(exit_code: int, oom_kills_before: int) -> str:
    """What to tell of a process's end.

    Args:
        exit_code: as `subprocess` has it: the negative number of the signal that killed it.
        oom_kills_before: what `oom_kills` said when the process was started.
    """
    if exit_code >= 0:
        return f"exit code {exit_code}"
    try:
        name = signal.Signals(-exit_code).name
    except ValueError:
        name = f"signal {-exit_code}"
    if -exit_code != signal.SIGKILL:
        return f"killed by {name}"
    if (kills := oom_kills() - oom_kills_before) > 0:
        return (
            f"killed by {name}, most likely because memory ran out: the kernel has killed "
            f"{kills} for that meanwhile (see dmesg)"
        )
    return f"killed by {name}, and not for lack of memory"


def oom_kills() -> int:
    """How many processes the kernel has killed because memory ran out.

    In this process's control group, where the kernel counts that, else on the whole host.
    """
    for path in _counters():
        try:
            lines = path.read_text().splitlines()
        except OSError:
            continue
        for line in lines:
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
    return 0


def _counters() -> Iterator[Path]:
    """Files that may have a line "oom_kill COUNT"; control groups of version 2 and 1."""
    try:
        groups = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        groups = []
    for group in groups:
        _, controllers, path = group.split(":", 2)
        if not controllers:
            yield _CGROUPS / path.lstrip("/") / "memory.events"
        elif "memory" in controllers.split(","):
            yield _CGROUPS / "memory" / path.lstrip("/") / "memory.oom_control"
    yield Path("/proc/vmstat")
