"""Memory that is free: of the host, and of the control groups that bound this process."""

from __future__ import annotations

import math
from pathlib import Path

import psutil
import pytest

from service.processes.free_memory import free_memory_bytes

MB = 1024**2


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A proc file system of a host with 1000 MB free, whose process is in the group /a/b."""
    folder = tmp_path / "proc"
    (folder / "self").mkdir(parents=True)
    (folder / "meminfo").write_text(f"MemTotal: 9 kB\nMemAvailable:   {1000 * 1024} kB\n")
    (folder / "self" / "cgroup").write_text("0::/a/b\n")
    return folder


def _group(folder: Path, limit: str, used: int, cached: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 5\ninactive_file {cached}\n")


@pytest.mark.parametrize(
    ("groups", "free"),
    [
        ({}, 1000),
        ({"a/b": ("max", 10, 0)}, 1000),
        ({"a/b": (str(500 * MB), 200 * MB, 50 * MB)}, 350),
        ({"a/b": (str(500 * MB), 0, 0), "a": (str(400 * MB), 100 * MB, 0)}, 300),
        # In a container the group's own folder is the root.
        ({"": (str(300 * MB), 100 * MB, 0)}, 200),
        ({"a": (str(100 * MB), 200 * MB, 0)}, 0),
    ],
)
def test_the_least_that_is_left(
    tmp_path: Path, proc: Path, groups: dict[str, tuple[str, int, int]], free: int
) -> None:
    for name, numbers in groups.items():
        _group(tmp_path / "cgroup" / name, *numbers)
    assert free_memory_bytes(proc, tmp_path / "cgroup") == free * MB


def test_control_groups_of_version_1(tmp_path: Path, proc: Path) -> None:
    (proc / "self" / "cgroup").write_text("5:cpu:/x\n4:memory:/a\n")
    folder = tmp_path / "cgroup" / "memory" / "a"
    folder.mkdir(parents=True)
    (folder / "memory.limit_in_bytes").write_text(f"{300 * MB}\n")
    (folder / "memory.usage_in_bytes").write_text(f"{100 * MB}\n")
    (folder / "memory.stat").write_text(f"inactive_file 1\ntotal_inactive_file {20 * MB}\n")
    assert free_memory_bytes(proc, tmp_path / "cgroup") == 220 * MB


def test_where_nothing_tells_there_is_no_limit(tmp_path: Path) -> None:
    assert free_memory_bytes(tmp_path / "none", tmp_path / "none") == math.inf


def test_of_this_host() -> None:
    assert 0 < free_memory_bytes() <= psutil.virtual_memory().total
