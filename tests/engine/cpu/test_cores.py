from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.cpu.cores import (
    CORES_VARIABLE,
    available_cores,
    cgroup_quota_cores,
    cpu_identity,
    fitting_contexts,
    threads_per_context,
)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


class TestCgroupQuota:
    @pytest.fixture
    def proc(self, tmp_path: Path) -> Path:
        return tmp_path / "cgroup"

    def test_version_2(self, tmp_path: Path, proc: Path) -> None:
        write(proc, "0::/app.slice/server\n")
        write(tmp_path / "fs/app.slice/server/cpu.max", "250000 100000\n")
        assert cgroup_quota_cores(proc, tmp_path / "fs") == 2.5

    def test_version_2_without_a_limit(self, tmp_path: Path, proc: Path) -> None:
        write(proc, "0::/app.slice\n")
        write(tmp_path / "fs/app.slice/cpu.max", "max 100000\n")
        assert cgroup_quota_cores(proc, tmp_path / "fs") is None

    def test_a_tighter_parent_counts(self, tmp_path: Path, proc: Path) -> None:
        write(proc, "0::/pod/container\n")
        write(tmp_path / "fs/pod/container/cpu.max", "400000 100000\n")
        write(tmp_path / "fs/pod/cpu.max", "150000 100000\n")
        assert cgroup_quota_cores(proc, tmp_path / "fs") == 1.5

    def test_inside_a_container_the_mount_itself_is_read(self, tmp_path: Path, proc: Path) -> None:
        """The path is the host's and is not mounted; the limit lies at the root of the mount."""
        write(proc, "0::/kubepods/pod1/deadbeef\n")
        write(tmp_path / "fs/cpu.max", "100000 100000\n")
        assert cgroup_quota_cores(proc, tmp_path / "fs") == 1.0

    def test_version_1(self, tmp_path: Path, proc: Path) -> None:
        write(proc, "5:memory:/box\n4:cpu,cpuacct:/box\n1:name=systemd:/box\n0::/\n")
        write(tmp_path / "fs/cpu,cpuacct/box/cpu.cfs_quota_us", "300000\n")
        write(tmp_path / "fs/cpu,cpuacct/box/cpu.cfs_period_us", "100000\n")
        write(tmp_path / "fs/memory/box/cpu.cfs_quota_us", "100000\n")
        assert cgroup_quota_cores(proc, tmp_path / "fs") == 3.0

    def test_version_1_without_a_limit(self, tmp_path: Path, proc: Path) -> None:
        write(proc, "4:cpu:/\n")
        write(tmp_path / "fs/cpu/cpu.cfs_quota_us", "-1\n")
        write(tmp_path / "fs/cpu/cpu.cfs_period_us", "100000\n")
        assert cgroup_quota_cores(proc, tmp_path / "fs") is None

    def test_a_host_without_cgroups(self, tmp_path: Path) -> None:
        assert cgroup_quota_cores(tmp_path / "none", tmp_path) is None


def test_available_cores_follow_the_affinity_mask() -> None:
    one = min(os.sched_getaffinity(0))
    program = (
        f"import os; os.sched_setaffinity(0, {{{one}}}); "
        "from engine.cpu.cores import available_cores; print(available_cores())"
    )
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert int(printed.stdout) == 1
    assert 1 <= available_cores() <= len(os.sched_getaffinity(0))


def test_a_share_of_the_cores_counts_where_it_is_the_least(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = available_cores()
    for share, cores in (("1", 1), (str(whole + 1), whole), ("", whole)):
        monkeypatch.setenv(CORES_VARIABLE, share)
        assert available_cores() == cores


@pytest.mark.parametrize("share", ["0", "-1", "1.5", "two", "\u00b2", "100000"])
def test_a_share_that_is_no_number_of_cores_is_refused(
    monkeypatch: pytest.MonkeyPatch, share: str
) -> None:
    monkeypatch.setenv(CORES_VARIABLE, share)
    with pytest.raises(ValueError, match=f"THRIFTPIPE_CORES takes a number .*, got '{share}'"):
        available_cores()


def test_a_share_of_thousands_of_digits_is_told_in_a_short_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(CORES_VARIABLE, "9" * 5000)
    with pytest.raises(ValueError, match="THRIFTPIPE_CORES takes a number of cores") as refused:
        available_cores()
    assert len(str(refused.value)) < 300


@given(contexts=st.integers(1, 300), cores=st.integers(1, 300))
def test_contexts_and_threads_never_oversubscribe_the_cores(contexts: int, cores: int) -> None:
    fitting = fitting_contexts(contexts, cores)
    threads = threads_per_context(fitting, cores)
    assert 1 <= fitting <= contexts
    assert threads >= 1
    assert fitting * threads <= cores
    # No core is left without work that another thread of each context could do.
    assert fitting * (threads + 1) > cores


def test_without_a_number_the_cores_of_this_host_count() -> None:
    assert fitting_contexts(10_000) == available_cores()
    assert threads_per_context(1) == available_cores()


def test_the_cpu_has_one_identity() -> None:
    assert cpu_identity() == cpu_identity()
    assert len(cpu_identity()) == 64
