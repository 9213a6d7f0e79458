"""What processes have taken."""

from __future__ import annotations

import subprocess
import sys

from loadtest.records.probe import tree_cpu_s

_BURNT_S = 0.1
_CHILD = f"""
import sys, time
while time.process_time() < {_BURNT_S}:
    pass
print(flush=True)
sys.stdin.read()
"""
_PARENT = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {_CHILD!r}])"


def test_the_cpu_time_of_a_process_has_that_of_its_children() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        parent.stdout.readline()
        # The kernel counts in hundredths.
        assert tree_cpu_s(parent.pid) >= _BURNT_S - 0.02
        parent.stdin.close()
    assert parent.returncode == 0
