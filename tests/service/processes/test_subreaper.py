"""Processes whose parent has ended, in a process that has adopted them."""

from __future__ import annotations

import subprocess
import sys

import psutil
import pytest

# Starts a shell that leaves a process behind, and says which; then waits for it as for its own.
ADOPTER = """
import subprocess, sys
from service.processes.subreaper import become_subreaper, wait_for_children
become_subreaper()
shell = subprocess.run(["sh", "-c", sys.argv[1]], stdout=subprocess.PIPE, text=True, check=True)
pid = int(shell.stdout)
print(pid, wait_for_children(float(sys.argv[2]), own=[pid]))
"""


def run(shell: str, timeout_s: float) -> tuple[int, str]:
    command = [sys.executable, "-c", ADOPTER, shell, str(timeout_s)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=60, check=True)
    pid, killed = done.stdout.split(maxsplit=1)
    return int(pid), killed.strip()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a process adopt others")
def test_one_that_ends_by_itself_is_waited_for() -> None:
    pid, killed = run("head -c 20000000 /dev/urandom >/dev/null 2>&1 & echo $!", 60.0)
    assert killed == "[]"
    assert not psutil.pid_exists(pid)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a process adopt others")
def test_one_that_does_not_end_is_killed() -> None:
    pid, killed = run("tail -f /dev/null >/dev/null 2>&1 & echo $!", 0.05)
    assert killed == f"[{pid}]"
    assert not psutil.pid_exists(pid)
