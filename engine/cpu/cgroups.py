"""The control groups that bound this process, as folders."""

from __future__ import annotations

from pathlib import Path

PROC_CGROUP = Path("/proc/self/cgroup")
CGROUP_ROOT = Path("/sys/fs/cgroup")


def cgroup_folders(controller: str, proc_cgroup: Path, cgroup_root: Path) -> list[Path]:
    """The folders of this process's groups, from its own up to the root.

    Args:
        controller: of groups of version 1, such as "cpu".
        proc_cgroup: the file that names the process's groups.
        cgroup_root: where the groups are mounted, version 1 or 2.
    """
    try:
        lines = proc_cgroup.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    folders = []
    for line in lines:
        # "0::/path" in version 2, "4:cpu,cpuacct:/path" in version 1.
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        mounts = [controllers, controller] if controllers else ["", "unified"]
        for mount in mounts:
            relative = Path(path.lstrip("/"))
            # Inside a container the path may be the host's, which is not mounted here; its
            # parents, down to the mount itself, still are.
            folders += [cgroup_root / mount / part for part in (relative, *relative.parents)]
    return folders
