"""Signals other than the two that every server knows, and a log that is not read."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from typing import Any

import psutil
import pytest
from thriftpy2.rpc import make_client

from idl import inference

TIMEOUT_S = 30
NULL = ("-m", "service", "--handler", "null", "--port", "0")
# What nohup does.
NOHUP = """
import os, signal, sys
signal.signal(signal.SIGHUP, signal.SIG_IGN)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
# The thread that reads signals gets to none of them before Python has handled two.
LATE_READER = """
import runpy, sys, threading
from service.processes.signals import _StopBySignals as stop
handled, are_two, on_signal, note = [], threading.Event(), stop.on_signal, stop.note

def counted(self, number, frame):
    on_signal(self, number, frame)
    handled.append(number)
    if len(handled) == 2:
        are_two.set()

def late(self, number):
    are_two.wait()
    note(self, number)

stop.on_signal, stop.note = counted, late
sys.argv = sys.argv[2:]
runpy.run_module("service", run_name="__main__", alter_sys=True)
"""

Start = Callable[..., Any]


def ping(port: int) -> None:
    service = inference.InferenceService
    with closing(make_client(service, "127.0.0.1", port, timeout=TIMEOUT_S * 1000)) as client:
        client.ping()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_user_signals_to_all_processes_end_none(start: Start, workers: str) -> None:
    server = start(*NULL, "--workers", workers)
    port = server.port()
    processes = [server.process.pid]
    processes += [child.pid for child in psutil.Process(server.process.pid).children()]
    for number, told in (
        (signal.SIGUSR1, "most recent call first"),
        (signal.SIGUSR2, "SIGUSR2 does nothing"),
    ):
        os.killpg(server.process.pid, number)
        for _ in processes:
            server.read_until(told)
    ping(port)
    server.process.terminate()
    assert server.wait() == 0


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGQUIT])
def test_a_terminal_that_closes_drains_the_server(start: Start, workers: str, number: int) -> None:
    server = start(*NULL, "--workers", workers)
    server.port()
    os.killpg(server.process.pid, number)
    assert server.wait() == 0
    assert f"stopping ({signal.Signals(number).name})" in server.log
    assert server.left_behind() == []


def test_a_second_sighup_is_no_second_thoughts(start: Start) -> None:
    """Shell and kernel send one each when a terminal closes."""
    server = start(*NULL, "--drain-delay-s", "3600")
    port = server.port()
    server.process.send_signal(signal.SIGHUP)
    server.read_until("(SIGHUP): not ready, and serving on")
    server.process.send_signal(signal.SIGHUP)
    ping(port)
    server.process.send_signal(signal.SIGINT)
    server.process.terminate()
    assert server.wait() in (128 + signal.SIGINT, 128 + signal.SIGTERM)


def test_the_second_signal_is_handled_however_late_the_first_is_read(start: Start) -> None:
    server = start("-c", LATE_READER, *NULL, "--workers", "1", "--drain-delay-s", "3600")
    server.port()
    server.process.terminate()
    server.read_until("(SIGTERM): not ready, and serving on")
    server.process.terminate()
    assert server.wait() == 128 + signal.SIGTERM


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_server_that_nohup_started_outlives_its_terminal(start: Start, workers: str) -> None:
    server = start("-c", NOHUP, *NULL, "--workers", workers)
    port = server.port()
    os.killpg(server.process.pid, signal.SIGHUP)
    ping(port)
    server.process.terminate()
    assert server.wait() == 0
    assert "SIGHUP" not in server.log


@pytest.mark.parametrize("workers", ["1", "2"])
def test_it_serves_on_when_its_log_is_no_longer_read(start: Start, workers: str) -> None:
    server = start(*NULL, "--workers", workers)
    port = server.port()
    server.process.stderr.close()
    for _ in range(4):
        with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S) as sock:
            # Worth a line in the log.
            sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
            while sock.recv(4096):
                pass
        ping(port)
    server.process.send_signal(signal.SIGUSR2)
    server.process.terminate()
    assert server.process.wait(TIMEOUT_S) == 0


@pytest.mark.parametrize("workers", ["1", "2"])
def test_it_serves_and_stops_while_its_log_is_not_read(start: Start, workers: str) -> None:
    """Whatever there is to log."""
    server = start(*NULL, "--workers", workers, "--drain-delay-s", "0.1", "--log-level", "debug")
    port = server.port()
    server.fill_log()
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        os.killpg(server.process.pid, number)
    for _ in range(100):
        server.process.send_signal(signal.SIGUSR2)
        with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S) as sock:
            sock.sendall(b"GET ")
            while sock.recv(4096):
                pass
    ping(port)
    server.process.terminate()
    assert server.process.wait(TIMEOUT_S) == 0
    assert server.left_behind() == []


def test_lines_that_were_not_read_are_counted() -> None:
    code = (
        "import logging, sys\n"
        "from service.logs.log_settings import LogSettings\n"
        "from service.logs.start import start_log\n"
        "from service.processes.process import leave\n"
        "start_log(LogSettings())\n"
        "for _ in range(5000): logging.info('one of many')\n"
        "print(flush=True)\n"
        "(handler,) = logging.root.handlers\n"
        "while handler.waiting: handler.flush()\n"
        "logging.info('the last one')\n"
        "leave(0)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "\n"
        *lines, told, last = process.communicate(timeout=60)[1].splitlines()
    assert process.returncode == 0
    assert 1000 < len(lines) < 5000
    dropped = 5000 - len(lines)
    assert told.endswith(
        f"WARNING service.logs.queued: {dropped} log lines were dropped: they were not read"
    )
    assert last.endswith("INFO root: the last one")


def test_a_fork_logs_too() -> None:
    code = (
        "import logging, os\n"
        "from service.logs.log_settings import LogSettings\n"
        "from service.logs.start import start_log\n"
        "from service.processes.process import leave\n"
        "start_log(LogSettings(), 'worker 0')\n"
        "if not os.fork(): logging.info('here'); os._exit(0)\n"
        "os.wait()\n"
        "leave(0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stderr.endswith(" INFO worker 0 root: here\n")


def test_stacks_that_are_asked_for_are_logged_at_any_level() -> None:
    code = (
        "import os, signal, threading\n"
        "from service.logs.log_settings import LogSettings\n"
        "from service.logs.start import start_log\n"
        "from service.processes.signals import leave_stop_to_supervisor\n"
        "start_log(LogSettings('critical'))\n"
        "leave_stop_to_supervisor()\n"
        "os.kill(os.getpid(), signal.SIGUSR1)\n"
        "threading.Event().wait()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr
        told = process.stderr.readline()
        assert told.endswith(
            " INFO service.processes.signals: the stacks of all threads (SIGUSR1):\n"
        )
        assert "most recent call first" in process.stderr.readline()
        process.kill()


def test_the_end_of_what_hangs_needs_neither_the_interpreter_nor_a_reader() -> None:
    code = (
        "import ctypes, os\n"
        "from service.processes.process import end_within\n"
        "os.set_blocking(2, False)\n"
        "try:\n"
        "    while True: os.write(2, b'x')\n"
        "except BlockingIOError: os.set_blocking(2, True)\n"
        "end_within(0.01)\n"
        "ctypes.PyDLL(None).pause()\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE) as process:
        assert process.wait(60) == -signal.SIGALRM


def test_a_closed_stream_is_replaced_by_what_is_no_connection() -> None:
    code = (
        "import os, sys\n"
        "os.close(0); os.close(2); sys.stderr = None\n"
        "from service.logs.log_settings import LogSettings\n"
        "from service.logs.start import start_log\n"
        "from service.processes.process import leave\n"
        "start_log(LogSettings())\n"
        "import logging; logging.error('this is not read')\n"
        "print(os.readlink('/proc/self/fd/0'), os.readlink('/proc/self/fd/2'))\n"
        "leave(0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == ["/dev/null", "/dev/null"]
