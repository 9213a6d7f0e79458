"""The sampler, on real processes that really work."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

import psutil
import pytest

from loadtest.measure.sampling import Sampler, local_server_pid
from loadtest.processes.child_process import ChildProcess
from loadtest.records.probe import Gpus, Probe

Start = Callable[[str], tuple[ChildProcess, Callable[[], str | None]]]

BURNT_S = 0.3
# The kernel counts CPU time in ticks of 10 ms, separately for user and system, per process.
TICKS_S = 0.06

# A process and its child; on a line from stdin both burn CPU time, then the parent says so.
BUSY_TREE = f"""
import subprocess, sys, time
burn = "import sys, time\\nsys.stdin.readline()\\nend = time.process_time() + {BURNT_S}\\n" \\
    "while time.process_time() < end: pass\\nprint('burnt', flush=True)\\nsys.stdin.readline()\\n"
child = subprocess.Popen([sys.executable, "-c", burn], stdin=-1, stdout=-1, text=True)
print("started", flush=True)
def burn_both():
    child.stdin.write("go\\n"); child.stdin.flush()
    end = time.process_time() + {BURNT_S}
    while time.process_time() < end: pass
    child.stdout.readline()
sys.stdin.readline()
burn_both()
print("burnt", flush=True)
sys.stdin.readline()
child.stdin.write("end\\n"); child.stdin.flush(); child.wait()
print("child ended", flush=True)
sys.stdin.readline()
"""


def test_cpu_time_of_the_whole_tree_is_counted_also_after_a_child_ended(start_child: Start) -> None:
    tree, next_line = start_child(BUSY_TREE)
    assert next_line() == "started\n"
    with Sampler(Probe(tree.pid, [])) as sampler:
        sampler.sample()
        tree.write_line("burn")
        assert next_line() == "burnt\n"
        sampler.sample()
        burnt = sampler.samples(0.0)
        tree.write_line("end the child")
        assert next_line() == "child ended\n"
        sampler.sample()
        ended = sampler.samples(0.0)
    assert burnt[0].values["server_cpu_s"] is not None
    assert burnt[-1].values["server_cpu_s"] is not None
    assert ended[-1].values["server_cpu_s"] is not None
    assert (
        burnt[-1].values["server_cpu_s"] - burnt[0].values["server_cpu_s"] >= 2 * BURNT_S - TICKS_S
    )
    assert ended[-1].values["server_cpu_s"] >= burnt[-1].values["server_cpu_s"] - TICKS_S


def test_resident_memory_of_the_tree_is_counted(start_child: Start) -> None:
    size = 60 * 2**20
    child, next_line = start_child(
        f"import sys\ndata = b'x' * {size}\nprint('held', flush=True)\nsys.stdin.readline()"
    )
    assert next_line() == "held\n"
    with Sampler(Probe(child.pid, [])) as sampler:
        sampler.sample()
    sample = sampler.samples(0.0)[-1]
    assert sample.values["server_rss_bytes"] is not None
    assert sample.values["server_rss_bytes"] > size


def test_clients_are_counted_apart_from_the_server(start_child: Start) -> None:
    server, server_line = start_child("print('idle', flush=True)\nimport sys; sys.stdin.readline()")
    client, client_line = start_child(
        "import sys, time\n"
        f"while time.process_time() < {BURNT_S}: pass\n"
        "print('burnt', flush=True)\nsys.stdin.readline()"
    )
    assert server_line() == "idle\n"
    assert client_line() == "burnt\n"
    with Sampler(Probe(server.pid, [client.pid])) as sampler:
        sampler.sample()
    sample = sampler.samples(0.0)[-1]
    assert sample.values["clients_cpu_s"] >= BURNT_S - TICKS_S
    assert sample.values["server_cpu_s"] is not None
    assert sample.values["server_cpu_s"] < sample.values["clients_cpu_s"]


def test_a_server_that_is_gone_is_not_available_and_not_zero(start_child: Start) -> None:
    child, next_line = start_child("pass")
    with Sampler(Probe(child.pid, [])) as sampler:
        assert next_line() is None
        child.wait(60)
        sampler.sample()
    sample = sampler.samples(0.0)[-1]
    assert (sample.values["server_cpu_s"], sample.values["server_rss_bytes"]) == (None, None)


def test_gpus_are_read_or_there_are_none() -> None:
    gpus = Gpus()
    assert len(gpus.utilisation_percents()) == len(gpus.memory_bytes()) == len(gpus.names)


def test_only_the_process_that_listens_here_is_taken_for_the_server() -> None:
    """A pid from another machine may be that of any process here."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert local_server_pid("localhost", port, os.getpid()) == os.getpid()
        assert local_server_pid("127.0.0.1", port + 1, os.getpid()) is None
        # A pid that no process has.
        assert local_server_pid("127.0.0.1", port, max(psutil.pids()) + 100_000) is None
        assert local_server_pid("192.0.2.1", port, os.getpid()) is None


@pytest.mark.parametrize("host", ["no-such-host.invalid"])
def test_an_unknown_host_is_not_this_machine(host: str) -> None:
    assert local_server_pid(host, 1, os.getpid()) is None
